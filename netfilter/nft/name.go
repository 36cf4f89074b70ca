package nft

import (
	"regexp"
	"strings"
)

// bare are names that some version of nft may have as a keyword: drop, dst, last.
var bare = regexp.MustCompile(`^[a-zA-Z0-9]+$`)

// readable are the names that nft's scanner takes without quotes.
var readable = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_./-]*$`)

// objectName is a name of the model as nft can read it: no keyword begins with an
// underscore, and an IPv6 address in a name loses its colons.
func objectName(name string) string {
	if bare.MatchString(name) {
		return "_" + name
	}
	return strings.ReplaceAll(name, ":", "_")
}

// modelName is the name of the model again; Validate keeps those that begin with
// an underscore out of it.
func modelName(name string) string { return strings.TrimPrefix(name, "_") }
