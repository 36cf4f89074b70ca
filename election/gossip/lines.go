package gossip

import (
	"context"
	"log"
	"log/slog"
	"net/netip"
	"strings"
	"time"
)

// wrongKeyText is how memberlist says that it cannot decrypt (security.go).
const wrongKeyText = "no installed keys could decrypt the message"

// repeatAfter is how often one kind of warning of memberlist's is shown.
const repeatAfter = 30 * time.Second

// lines takes memberlist's log. It never makes memberlist wait, which may log
// with its locks held: what the log's writer cannot keep up with is lost.
type lines struct {
	log   *slog.Logger
	note  func(text string) (known bool)
	queue chan entry
}

type entry struct {
	level   slog.Level
	message string
	args    []any
	kind    string // for entries that are limited
}

func newLines(to *slog.Logger, note func(string) bool) *lines {
	return &lines{log: to, note: note, queue: make(chan entry, 256)}
}

func (l *lines) logger() *log.Logger { return log.New(l, "", 0) }

// say logs a change of state.
func (l *lines) say(message string, args ...any) {
	l.put(entry{level: slog.LevelInfo, message: message, args: args})
}

func (l *lines) put(e entry) {
	select {
	case l.queue <- e:
	default:
	}
}

// Write takes one line of memberlist's.
func (l *lines) Write(p []byte) (int, error) {
	severe, text := splitLine(string(p))
	e := entry{level: slog.LevelDebug, message: "memberlist", args: []any{"text", text}}
	if severe && !l.note(text) {
		e.level, e.kind = slog.LevelWarn, kindOf(text)
	}
	if e.level > slog.LevelDebug || l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.put(e)
	}
	return len(p), nil
}

// drain writes until ctx ends, then what is left.
func (l *lines) drain(ctx context.Context) {
	shown := map[string]time.Time{}
	for {
		select {
		case e := <-l.queue:
			l.write(e, shown)
		case <-ctx.Done():
			for {
				select {
				case e := <-l.queue:
					l.write(e, shown)
				default:
					return
				}
			}
		}
	}
}

func (l *lines) write(e entry, shown map[string]time.Time) {
	if e.kind != "" {
		now := time.Now()
		if last, ok := shown[e.kind]; ok && now.Sub(last) < repeatAfter {
			e.level = slog.LevelDebug
		} else {
			if len(shown) > 100 {
				clear(shown)
			}
			shown[e.kind] = now
		}
	}
	l.log.Log(context.Background(), e.level, e.message, e.args...)
}

// splitLine takes "[ERR] memberlist: text" apart; severe are warnings and errors.
func splitLine(line string) (severe bool, text string) {
	text = strings.TrimSpace(line)
	if level, rest, ok := strings.Cut(text, "] "); ok && strings.HasPrefix(level, "[") {
		severe = level != "[DEBUG" && level != "[INFO"
		text = rest
	} else {
		severe = true // memberlist's "Err: could not set the deadline"
	}
	return severe, strings.TrimPrefix(text, "memberlist: ")
}

// kindOf is a line without what differs each time: all before the first colon,
// quote or digit.
func kindOf(text string) string {
	if i := strings.IndexAny(text, ":'\"0123456789"); i > 0 {
		return text[:i]
	}
	return text
}

// noteLine finds in a warning what a user can cure. known lines are shown as
// Problems, not as log lines.
func (g *Gossip) noteLine(text string) (known bool) {
	from, hasFrom := fromOf(text)
	switch {
	case strings.Contains(text, wrongKeyText):
		g.counts.undecryptable.Add(1)
		if hasFrom {
			g.noteWrongKey(from)
		}
		return hasFrom
	case strings.Contains(text, "remote state is not encrypted"),
		strings.HasPrefix(text, "Decrypt packet failed"):
		g.counts.undecryptable.Add(1)
		if hasFrom {
			g.noteStranger(from, OtherProtocol, "sends to the gossip port what no gateway sends: end the program, or give gossip a port of its own")
		}
		return hasFrom
	case strings.Contains(text, "unacceptable label"):
		if hasFrom {
			g.noteStranger(from, OtherProtocol, "is no gateway, or one of a version with another gossip protocol than "+label+": bring all members to one version, or give gossip a port of its own")
		}
		return hasFrom
	case strings.Contains(text, "protocol version (") && strings.Contains(text, "is incompatible"):
		if hasFrom {
			g.noteStranger(from, OtherProtocol, "is of a version with an incompatible gossip protocol: bring all members to one version")
		}
		return hasFrom
	case strings.HasPrefix(text, "Was able to connect to ") && strings.Contains(text, "UDP probes failed"):
		name, _, _ := strings.Cut(strings.TrimPrefix(text, "Was able to connect to "), " ")
		g.noteNoUDP(name)
		return true
	case strings.HasPrefix(text, "Conflicting address for"):
		return true // NotifyConflict says it better
	}
	return false
}

func (g *Gossip) noteNoUDP(name string) {
	g.mu.Lock()
	p := g.book.byName[name]
	var addr netip.AddrPort
	if p != nil {
		addr = p.addr
	}
	g.mu.Unlock()
	if addr.IsValid() {
		g.noteStranger(addr, Unreachable, "answers over TCP but not over UDP, without which it cannot vote: let UDP pass between members on the gossip port")
	}
}

// fromOf is the address at the end of a line (memberlist's logging.go).
func fromOf(text string) (netip.AddrPort, bool) {
	i := strings.LastIndex(text, "from=")
	if i < 0 {
		return netip.AddrPort{}, false
	}
	addr, err := netip.ParseAddrPort(text[i+len("from="):])
	return unmap(addr), err == nil
}
