package iptables

import (
	"bufio"
	"bytes"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/netfilter"
)

// listing is what iptables-save shows of one kernel table: chains of ours with
// their rules, the built-in chains as far as our jumps go.
type listing struct {
	chains   map[string][]listed
	builtins map[string]*builtin
	foreign  int // chains of others
	rules    int // all rules
}

// listed is one rule of a chain of ours.
type listed struct {
	comment string // "" when the rule is not ours
	counts  netfilter.Counts
}

// builtin is a built-in chain: its jumps to chains of ours, and where others' rules are.
type builtin struct {
	policy string
	jumps  []jumpAt
	rules  int
}

// jumpAt is a jump found in a built-in chain.
type jumpAt struct {
	jump
	comment string // as it stands, to be deleted by
	at      int    // from 0
}

// counter is the name in a rule's comment.
func counterIn(comment string) string {
	for _, w := range strings.Fields(comment) {
		if name, is := strings.CutPrefix(w, countPrefix); is {
			return name
		}
	}
	return ""
}

// parseSave reads the output of iptables-save -c.
func parseSave(save []byte) map[string]*listing {
	tables := map[string]*listing{}
	var t *listing
	lines := bufio.NewScanner(bytes.NewReader(save))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "*"):
			t = &listing{chains: map[string][]listed{}, builtins: map[string]*builtin{}}
			tables[line[1:]] = t
		case t == nil:
		case strings.HasPrefix(line, ":"):
			t.declare(line[1:])
		case strings.HasPrefix(line, "["), strings.HasPrefix(line, "-A "):
			t.append(line)
		}
	}
	return tables
}

func (t *listing) declare(line string) {
	name, rest, _ := strings.Cut(line, " ")
	policy, _, _ := strings.Cut(rest, " ")
	switch {
	case policy != "-":
		t.builtins[name] = &builtin{policy: policy}
	case strings.HasPrefix(name, chainPrefix):
		t.chains[name] = nil
	default:
		t.foreign++
	}
}

func (t *listing) append(line string) {
	counts, spec := cutCounts(line)
	spec, is := strings.CutPrefix(spec, "-A ")
	if !is {
		return
	}
	t.rules++
	chain, spec, _ := strings.Cut(spec, " ")
	if b := t.builtins[chain]; b != nil {
		at := b.rules
		b.rules++
		_, to, _ := strings.Cut(spec, "-j "+chainPrefix)
		comment := commentIn(spec)
		if to == "" || comment == "" {
			return
		}
		to, _, _ = strings.Cut(chainPrefix+to, " ")
		early := strings.HasSuffix(comment, " "+earlyJump)
		b.jumps = append(b.jumps, jumpAt{jump: jump{chain: to, early: early}, comment: comment, at: at})
		return
	}
	if _, ours := t.chains[chain]; ours {
		t.chains[chain] = append(t.chains[chain], listed{comment: commentIn(spec), counts: counts})
	}
}

// commentIn finds our comment in a rule; it has no quotes inside.
func commentIn(spec string) string {
	const flag = `--comment "` + commentPrefix
	_, after, found := strings.Cut(spec, flag)
	if !found {
		return ""
	}
	text, _, _ := strings.Cut(after, `"`)
	return commentPrefix + text
}

func cutCounts(line string) (netfilter.Counts, string) {
	head, spec, found := strings.Cut(line, "] ")
	if !found || !strings.HasPrefix(head, "[") {
		return netfilter.Counts{}, line
	}
	packets, octets, _ := strings.Cut(head[1:], ":")
	p, _ := strconv.ParseUint(packets, 10, 64)
	b, _ := strconv.ParseUint(octets, 10, 64)
	return netfilter.Counts{Packets: p, Bytes: b}, spec
}
