package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMembersFindEachOtherWhateverStartsFirst(t *testing.T) {
	l := newLAN(t, 3)
	a := l.start(0) // no peer answers yet
	b := l.start(1)
	c := l.start(2)
	eventually(t, 10*time.Second, "all see all", func() bool {
		return a.sees("n1", "n2") && b.sees("n0", "n2") && c.sees("n0", "n1")
	})
	hears(t, b, a, "hello")
	hears(t, c, a, "hello")
	if err := a.Send("n2", []byte("for n2")); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "n2 hears what was sent to it", func() bool {
		select {
		case m := <-c.Messages():
			return m.From == "n0" && m.Addr == l.addr(0) && string(m.Payload) == "for n2" && m.At > 0
		default:
			return false
		}
	})
	if err := a.Send("n9", nil); !errors.Is(err, ErrUnknown) {
		t.Errorf("send to an unknown member: %v, want %v", err, ErrUnknown)
	}
	if got := a.Problems(); len(got) != 0 {
		t.Errorf("problems among good members: %v", got)
	}

	c.stop()
	eventually(t, 5*time.Second, "a member that leaves is seen to", func() bool { return a.sees("n1") && b.sees("n0") })
	if err := c.Broadcast([]byte("from the grave")); !errors.Is(err, ErrNotRunning) {
		t.Errorf("broadcast after the end: %v, want %v", err, ErrNotRunning)
	}
}

// The first message of a healed partition arrives though both sides have buried
// each other, and memberlist joins again also after it has forgotten the dead.
func TestPartitionHeals(t *testing.T) {
	for _, forget := range []time.Duration{30 * time.Second, time.Millisecond} {
		t.Run(fmt.Sprintf("gossip to the dead %s", forget), func(t *testing.T) {
			l := newLAN(t, 3)
			quick := func(c *Config) { c.GossipToTheDead = forget }
			a, b, c := l.start(0, quick), l.start(1, quick), l.start(2, quick)
			eventually(t, 10*time.Second, "all see all", func() bool {
				return a.sees("n1", "n2") && b.sees("n0", "n2") && c.sees("n0", "n1")
			})
			l.cut(2)
			eventually(t, 10*time.Second, "each side buries the other", func() bool {
				return a.sees("n1") && b.sees("n0") && c.sees()
			})
			if forget < time.Second {
				// memberlist forgets the dead when a round of probes is through.
				eventually(t, 10*time.Second, "memberlist forgets n2", func() bool {
					return a.list.Load().NumMembers() == 2 && !strings.Contains(fmt.Sprint(a.list.Load().Members()), "n2")
				})
			}
			l.heal(2)
			healed := time.Now()
			hears(t, a, c, "I am back")
			t.Logf("heard %s after the heal", time.Since(healed).Round(time.Millisecond))
			eventually(t, 10*time.Second, "all see all again", func() bool {
				return a.sees("n1", "n2") && b.sees("n0", "n2") && c.sees("n0", "n1")
			})
			t.Logf("joined %s after the heal", time.Since(healed).Round(time.Millisecond))
		})
	}
}

// With no rejoining on its own account to hide behind, messages still go to the
// buried, and hearing one starts the join.
func TestTheBuriedAreSentToAndHeard(t *testing.T) {
	l := newLAN(t, 2)
	// memberlist itself heals what it has not yet stopped to gossip to.
	never := func(c *Config) { c.RejoinEvery, c.GossipToTheDead = 24*time.Hour, time.Millisecond }
	a, b := l.start(0, never), l.start(1, never)
	eventually(t, 10*time.Second, "both see each other", func() bool { return a.sees("n1") && b.sees("n0") })
	// Dropped and not merely cut: the kernel keeps some datagrams for a neighbour it
	// cannot resolve, and memberlist could refute its death with those.
	for _, h := range l.hosts {
		l.run(h, "nft", "add table inet cut; add chain inet cut in { type filter hook input priority 0; policy drop; }")
	}
	eventually(t, 10*time.Second, "each buries the other", func() bool { return a.sees() && b.sees() })
	for _, h := range l.hosts {
		l.run(h, "nft", "delete table inet cut")
	}
	hears(t, a, b, "I am back")
	eventually(t, 10*time.Second, "they join", func() bool { return a.sees("n1") && b.sees("n0") })
}

func TestRestartOnAnotherAddress(t *testing.T) {
	l := newLAN(t, 3)
	a, b := l.start(0), l.start(1)
	c := l.start(2)
	eventually(t, 10*time.Second, "all see all", func() bool {
		return a.sees("n1", "n2") && b.sees("n0", "n2") && c.sees("n0", "n1")
	})
	// It dies with its link, so that no farewell gets out.
	l.cut(2)
	c.stop()
	moved := netip.AddrPortFrom(netip.MustParseAddr("10.55.0.77"), 7946)
	l.run(l.hosts[2], "ip", "address", "flush", "dev", "eth0")
	l.run(l.hosts[2], "ip", "address", "add", "10.55.0.77/24", "dev", "eth0")
	l.heal(2)
	c = l.start(2, func(c *Config) { c.Bind = moved })
	at := func(m *member) bool {
		for _, x := range m.Members() {
			if x.Name == "n2" && x.Alive && x.Addr == moved {
				return true
			}
		}
		return false
	}
	eventually(t, 15*time.Second, "n2 is accepted at its new address", func() bool { return at(a) && at(b) && c.sees("n0", "n1") })
	hears(t, a, c, "moved")
	if text, is := a.problem("Member n2", NameTaken); is {
		t.Errorf("a restart is no conflict of names: %s", text)
	}
}

// The pods of a StatefulSet may come back on each other's nodes.
func TestTwoMembersChangePlaces(t *testing.T) {
	l := newLAN(t, 3)
	a, b, c := l.start(0), l.start(1), l.start(2)
	eventually(t, 10*time.Second, "all see all", func() bool {
		return a.sees("n1", "n2") && b.sees("n0", "n2") && c.sees("n0", "n1")
	})
	hears(t, a, b, "in its place")
	hears(t, a, c, "in its place")
	for i, m := range map[int]*member{1: b, 2: c} { // a cut link delivers the farewell as soon as it is whole
		l.run(l.hosts[i], "nft", "add table inet f; add chain inet f o { type filter hook output priority 0; policy drop; }")
		m.stop()
	}
	eventually(t, 15*time.Second, "both are buried", func() bool { return a.sees() })
	for i := 1; i <= 2; i++ {
		l.run(l.hosts[i], "nft", "delete table inet f")
	}
	c = l.start(1, func(c *Config) { c.Name = "n2" })
	eventually(t, 15*time.Second, "the first is accepted", func() bool { return a.sees("n2") })
	b = l.start(2, func(c *Config) { c.Name = "n1" })
	hears(t, a, c, "from where n1 was")
	hears(t, a, b, "from where n2 was")
	eventually(t, 15*time.Second, "all see all again", func() bool {
		return a.sees("n1", "n2") && b.sees("n0", "n2") && c.sees("n0", "n1")
	})
	for _, name := range []string{"n1", "n2"} {
		if text, is := a.problem("Member "+name, NameTaken); is {
			t.Errorf("they changed places, and share nothing: %s", text)
		}
	}
}

// Nor need they have been missed by then.
func TestMembersChangePlacesAtOnce(t *testing.T) {
	l := newLAN(t, 4)
	a, moving := l.start(0), []*member{l.start(1), l.start(2), l.start(3)}
	names := []string{"n1", "n2", "n3"}
	eventually(t, 10*time.Second, "all see all", func() bool {
		for i, m := range moving {
			if !m.sees("n0", names[(i+1)%3], names[(i+2)%3]) {
				return false
			}
		}
		return a.sees(names...)
	})
	for i, m := range moving {
		hears(t, a, m, "in its place")
		// A cut link would deliver the farewell as soon as it is whole.
		l.run(l.hosts[i+1], "nft", "add table inet f; add chain inet f o { type filter hook output priority 0; policy drop; }")
	}
	for _, m := range moving {
		m.stop()
	}
	for i := range moving {
		l.run(l.hosts[i+1], "nft", "delete table inet f")
	}
	for i := range moving {
		moving[i] = l.start(i+1, func(c *Config) { c.Name = names[(i+1)%3] })
	}
	eventually(t, 30*time.Second, "all are where they are now", func() bool {
		for i, name := range names {
			at := l.addr((i+2)%3 + 1)
			if !slices.ContainsFunc(a.Members(), func(m Member) bool { return m.Name == name && m.Alive && m.Addr == at }) {
				return false
			}
		}
		for i, m := range moving {
			if !m.sees("n0", names[i], names[(i+2)%3]) {
				return false
			}
		}
		return true
	})
	for _, m := range moving {
		hears(t, a, m, "from elsewhere")
		hears(t, m, a, "to elsewhere")
	}
	for _, name := range names {
		if text, is := a.problem("Member "+name, NameTaken); is {
			t.Errorf("they changed places, and share nothing: %s", text)
		}
	}
}

func TestWrongKeyIsNamedOnBothSides(t *testing.T) {
	l := newLAN(t, 3)
	a, b := l.start(0), l.start(1)
	c := l.start(2, func(c *Config) { c.Keys = keysOf("quite another secret") })
	eventually(t, 10*time.Second, "the right ones see each other", func() bool { return a.sees("n1") && b.sees("n0") })
	for _, m := range []*member{a, b} {
		eventually(t, 15*time.Second, m.cfg.Name+" names the stranger", func() bool {
			text, is := m.problem("Member 10.55.0.3:7946", WrongKey)
			return is && strings.Contains(text, m.KeyFingerprint()) && strings.Contains(text, "key file")
		})
	}
	eventually(t, 15*time.Second, "the wrong one names the others and itself", func() bool {
		_, first := c.problem("Member 10.55.0.1:7946", WrongKey)
		_, second := c.problem("Member 10.55.0.2:7946", WrongKey)
		_, own := c.problem("Member n2", WrongKey)
		return first && second && own
	})
	if _, is := a.problem("Member n0", WrongKey); is {
		t.Error("a member that agrees with another one suspects its own key")
	}
	hears(t, b, a, "unaffected")
	if !c.sees() {
		t.Error("a member with the wrong key joined")
	}

	// The cure, while running.
	if err := c.SetKeys(keysOf("the common secret of the lan")); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "it joins with the right key", func() bool { return c.sees("n0", "n1") && a.sees("n1", "n2") })
	eventually(t, 15*time.Second, "the problem ceases", func() bool {
		return len(a.Problems()) == 0 && len(b.Problems()) == 0 && len(c.Problems()) == 0
	})
	eventually(t, 5*time.Second, "that is logged", func() bool { return strings.Contains(a.log.String(), "gossip problem ended") })
}

func TestTwoMembersOfOneName(t *testing.T) {
	l := newLAN(t, 3)
	a, b := l.start(0), l.start(1)
	eventually(t, 10*time.Second, "the first two see each other", func() bool { return a.sees("n1") && b.sees("n0") })
	// The elder by more than the margin, so that age decides and not the address.
	eventually(t, 10*time.Second, "n0 has some age", func() bool { return time.Since(a.started) > 2*elderMargin })
	double := l.start(2, func(c *Config) { c.Name = "n0" })
	for _, m := range []*member{a, b, double} {
		eventually(t, 15*time.Second, m.cfg.Bind.String()+" names both addresses", func() bool {
			_ = a.Broadcast([]byte("elder"))
			_ = double.Broadcast([]byte("younger"))
			text, is := m.problem("Member n0", NameTaken)
			return is && strings.Contains(text, "10.55.0.1:7946") && strings.Contains(text, "10.55.0.3:7946")
		})
	}
	eventually(t, 5*time.Second, "the younger keeps silent", func() bool {
		return errors.Is(double.Broadcast([]byte("younger")), ErrNameTaken)
	})
	if err := a.Broadcast([]byte("elder")); err != nil {
		t.Errorf("the elder cannot send: %v", err)
	}
	hears(t, b, a, "still the one")
	for len(b.Messages()) > 0 {
		if m := <-b.Messages(); string(m.Payload) == "younger" {
			t.Error("n1 took a message of the younger for the elder's")
		}
	}
	double.stop()
	if !b.sees("n0") {
		t.Error("the younger's end had the elder buried")
	}
	eventually(t, 15*time.Second, "the problem ceases", func() bool {
		_, one := a.problem("Member n0", NameTaken)
		_, two := b.problem("Member n0", NameTaken)
		return !one && !two
	})
}

func TestUnreachableJoinAddressIsNamed(t *testing.T) {
	l := newLAN(t, 2)
	a := l.start(0, func(c *Config) {
		c.Join = append(c.Join, "10.55.0.99")
		c.UnreachableAfter = time.Second
	})
	eventually(t, 10*time.Second, "both are named, each with its cause", func() bool {
		refused, one := a.problem("Member 10.55.0.2:7946", Unreachable)
		silent, two := a.problem("Member 10.55.0.99:7946", Unreachable)
		return one && strings.Contains(refused, "refuses the connection") && two && strings.Contains(silent, "no ")
	})
	l.start(1)
	eventually(t, 10*time.Second, "the problem of the one that came ceases", func() bool {
		_, one := a.problem("Member n1", Unreachable)
		_, two := a.problem("Member 10.55.0.2:7946", Unreachable)
		return a.sees("n1") && !one && !two
	})
}

func TestUDPBlockedIsNamed(t *testing.T) {
	l := newLAN(t, 2)
	a, b := l.start(0), l.start(1)
	eventually(t, 10*time.Second, "both see each other", func() bool { return a.sees("n1") && b.sees("n0") })
	l.run(l.hosts[1], "nft", "add table inet f; add chain inet f i { type filter hook input priority 0; }; add rule inet f i meta l4proto udp drop")
	eventually(t, 15*time.Second, "n0 says that UDP is missing", func() bool {
		text, is := a.problem("Member n1", Unreachable)
		return is && strings.Contains(text, "not over UDP")
	})
}

func TestPayloadTooLargeIsRefusedAndNamed(t *testing.T) {
	l := newLAN(t, 2)
	a, b := l.start(0), l.start(1)
	eventually(t, 10*time.Second, "both see each other", func() bool { return a.sees("n1") && b.sees("n0") })
	if err := a.Broadcast(make([]byte, a.MaxPayload()+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one byte too many: %v, want %v", err, ErrTooLarge)
	}
	if _, is := a.problem("Member n0", TooLarge); !is {
		t.Errorf("no problem says so: %v", a.Problems())
	}
	// The largest one that is allowed is a datagram of just that size.
	before := a.Counts()
	largest := strings.Repeat("x", a.MaxPayload())
	hears(t, b, a, largest)
	if sent := a.Counts().BytesSent - before.BytesSent; sent < 1400 {
		t.Errorf("%d bytes sent for a payload of %d, the datagram should have 1400", sent, len(largest))
	}
}

func TestSlowReaderLosesTheOldest(t *testing.T) {
	l := newLAN(t, 2)
	a := l.start(0)
	b := l.start(1, func(c *Config) { c.Queue = 4 })
	eventually(t, 10*time.Second, "both see each other", func() bool { return a.sees("n1") && b.sees("n0") })
	for i := range uint64(100) {
		// Each is sent once and waited for: of two under way the newer could come first.
		if err := a.Send("n1", fmt.Appendf(nil, "%d", i)); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "it arrives", func() bool { return b.Counts().Received == i+1 })
	}
	eventually(t, 5*time.Second, "all that arrived is counted", func() bool {
		c := b.Counts()
		return c.Dropped > 0 && c.Received-c.Dropped == 4
	})
	for range 3 {
		<-b.Messages()
	}
	if m := <-b.Messages(); string(m.Payload) != "99" {
		t.Errorf("the newest kept is %q, want 99", m.Payload)
	}
	if !a.sees("n1") {
		t.Error("a reader that does not read made memberlist bury the member")
	}
}

// Every step of a rotation, while each member streams to the other.
func TestKeysRotateWithoutLosingAMessage(t *testing.T) {
	const old, fresh, oldest = "the secret of last year", "the secret of this year", "a still older secret"
	l := newLAN(t, 2)
	a := l.start(0, func(c *Config) { c.Keys = keysOf(old, oldest); c.Queue = 1 << 14 })
	b := l.start(1, func(c *Config) { c.Keys = keysOf(old, oldest); c.Queue = 1 << 14 })
	eventually(t, 10*time.Second, "both see each other", func() bool { return a.sees("n1") && b.sees("n0") })

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sent := make(chan uint64, 2)
	for _, m := range []*member{a, b} {
		go func() {
			var n uint64
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					sent <- n
					return
				case <-tick.C:
					if m.Broadcast([]byte("beat")) == nil {
						n++
					}
				}
			}
		}()
	}
	for _, step := range [][]string{{old, oldest, fresh}, {fresh, old, oldest}, {fresh, oldest}, {fresh}} {
		for _, m := range []*member{a, b} {
			if err := m.SetKeys(keysOf(step...)); err != nil {
				t.Fatal(err)
			}
			count := a.Counts().Received
			eventually(t, 5*time.Second, "the stream goes on", func() bool { return a.Counts().Received > count+20 })
		}
	}
	cancel()
	total := <-sent + <-sent
	eventually(t, 5*time.Second, "every message of the stream arrived", func() bool {
		return a.Counts().Received+b.Counts().Received == total
	})
	if n := a.Counts().Undecryptable + b.Counts().Undecryptable; n > 0 {
		t.Errorf("%d messages could not be read", n)
	}
	if !a.sees("n1") || !b.sees("n0") || len(a.Problems())+len(b.Problems()) > 0 {
		t.Errorf("the rotation was felt: %v %v", a.Problems(), b.Problems())
	}
	if got := len(a.keyring.GetKeys()); got != 1 {
		t.Errorf("%d keys are still accepted, want 1", got)
	}
}

func TestRunNamesTheAddressItCannotBind(t *testing.T) {
	l := newLAN(t, 1)
	first := l.start(0)
	for want, bind := range map[string]string{
		"no interface of this host has that address": "10.55.0.44:7946",
		"another program has the port":               first.cfg.Bind.String(),
	} {
		g, err := New(Config{Name: "n9", Bind: netip.MustParseAddrPort(bind), Keys: keysOf("x"), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		g.network = nsNetwork{l.hosts[0]}
		err = g.Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), bind) {
			t.Errorf("run on %s: %v, want the address and %q", bind, err, want)
		}
	}
}

func TestEndsSoonWithPeersThatDoNotAnswer(t *testing.T) {
	l := newLAN(t, 2)
	a, b := l.start(0), l.start(1)
	eventually(t, 10*time.Second, "both see each other", func() bool { return a.sees("n1") && b.sees("n0") })
	l.cut(1)
	began := time.Now()
	a.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the end took %s", took)
	}
}
