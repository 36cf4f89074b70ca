package nft

import "strings"

// bare says whether some version of nft may have the name as a keyword: drop, dst, last.
func bare(name string) bool { return name != "" && !strings.ContainsFunc(name, notAlphanumeric) }

// readable says whether nft's scanner takes the name without quotes:
// [a-zA-Z_][a-zA-Z0-9_./-]*
func readable(name string) bool {
	return name != "" && !strings.ContainsRune("0123456789./-", rune(name[0])) &&
		!strings.ContainsFunc(name, func(r rune) bool { return notAlphanumeric(r) && !strings.ContainsRune("_./-", r) })
}

func notAlphanumeric(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
}

// objectName is a name of the model as nft can read it: no keyword begins with an
// underscore, and an IPv6 address in a name loses its colons.
func objectName(name string) string {
	if bare(name) {
		return "_" + name
	}
	return strings.ReplaceAll(name, ":", "_")
}

// modelName is the name of the model again; Validate keeps those that begin with
// an underscore out of it.
func modelName(name string) string { return strings.TrimPrefix(name, "_") }
