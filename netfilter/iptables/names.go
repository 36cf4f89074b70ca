package iptables

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// What makes an object recognisable as ours.
const (
	chainPrefix   = "SALLY-"
	setPrefix     = "sally"
	commentPrefix = "sally:"
)

// Longest names the kernel takes: XT_EXTENSION_MAXNAMELEN and IPSET_MAXNAMELEN
// less the final NUL.
const (
	maxChain = 28
	maxSet   = 31
)

var (
	tableName  = regexp.MustCompile(`^sally[A-Za-z0-9_.-]{0,11}$`)
	shortTable = regexp.MustCompile(`^sally_[a-z0-9_]{1,10}$`)
	plainChain = regexp.MustCompile(`^[a-z0-9_.-]+$`)
	plainSet   = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
	unreadable = regexp.MustCompile(`[^A-Za-z0-9_.-]+`)
)

func checkTable(name string) error {
	if !tableName.MatchString(name) {
		return fmt.Errorf("table %q: the name must be \"sally\" and at most 11 letters, digits, _ . or -", name)
	}
	return nil
}

// chainsOf is the prefix of the chains of a table. It ends in the only "-" that
// can follow a token, so that no table's prefix begins another's.
func chainsOf(table string) string {
	if shortTable.MatchString(table) {
		return chainPrefix + strings.ToUpper(strings.TrimPrefix(table, "sally_")) + "-"
	}
	return chainPrefix + "." + digest(table, 4) + "-"
}

// chainName keeps short lower-case names readable and hashes the rest. Only
// chains that have no counterpart in the model have a "/" in name, and
// hashed ones; nft(8) can read back what it lists of both.
func chainName(table, name string, made bool) string {
	prefix := chainsOf(table)
	if full := prefix + strings.ToUpper(name); len(full) <= maxChain && (made || plainChain.MatchString(name)) {
		return full
	}
	const sum = 8
	readable := strings.ToUpper(unreadable.ReplaceAllString(name, "-"))
	return prefix + cut(readable, maxChain-len(prefix)-sum-1) + "/" + digest(name, sum/2)
}

// setsOf is the prefix of a table's sets; sets of both families share one name space.
func setsOf(table string, ipv6 bool) string {
	if ipv6 {
		return table + "6:"
	}
	return table + "4:"
}

// setName leaves room for the generation that follows it.
func setName(table string, ipv6 bool, name string, made bool) string {
	prefix := setsOf(table, ipv6)
	if full := prefix + name; len(full)+2 <= maxSet && (made || plainSet.MatchString(name)) {
		return full
	}
	const sum = 8
	return prefix + cut(unreadable.ReplaceAllString(name, "-"), maxSet-2-len(prefix)-sum-1) + "/" + digest(name, sum/2)
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:max(n, 0)]
	}
	return s
}

func digest(s string, bytes int) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:bytes])
}
