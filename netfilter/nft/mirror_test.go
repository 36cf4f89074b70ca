package nft

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/e2e/netns"
)

// sameAsRead fails unless the mirror shows what a reading of the kernel gives.
func sameAsRead(t *testing.T, m *mirror, after string) *present {
	t.Helper()
	seen, err := m.look()
	if err != nil {
		t.Fatalf("after %s: %v", after, err)
	}
	have, _, err := read(m.of, m.table)
	if err != nil {
		t.Fatalf("after %s: %v", after, err)
	}
	if !reflect.DeepEqual(seen, have) {
		t.Fatalf("after %s the mirror shows\n%v\nand the kernel\n%v", after, *seen, *have)
	}
	return seen
}

// TestMirrorFollowsEverybody compares it with the kernel while we, and others by nft,
// change the table and one beside it.
func TestMirrorFollowsEverybody(t *testing.T) {
	others := []string{
		"add table ip beside { set s { type ipv4_addr; }; }", "add element ip beside s { 10.9.0.1 }", "delete table ip beside",
		"add element ip sally_edit routes-sources { 10.9.0.1 : 1:1 }", "delete element ip sally_edit routes-sources { 10.9.0.1 }",
		"add element ip sally_edit peers { 10.9.0.1 }", "flush set ip sally_edit peers",
		"flush map ip sally_edit routes-sources", "flush map ip sally_edit routes-hosts",
		"add rule ip sally_edit steer accept", "add chain ip sally_edit foreign", "add counter ip sally_edit foreign",
		"delete counter ip sally_edit foreign", "delete table ip sally_edit", "flush ruleset",
	}
	for _, vmap := range []bool{true, false} {
		t.Run(fmt.Sprintf("verdicts=%t", vmap), func(t *testing.T) {
			netns.Test(t)
			ctx, a, random, table := context.Background(), applier(t), rand.New(rand.NewPCG(3, 4)), selections(vmap)
			m := &mirror{of: ipv4, table: table.Name, room: announcements}
			for n := range 150 {
				what := "an Apply"
				if random.IntN(2) == 0 {
					another(&table, random)
					if err := a.Apply(ctx, table); err != nil {
						t.Fatalf("change %d: %v", n, err)
					}
				} else {
					what = others[random.IntN(len(others))]
					_ = exec.Command("nft", strings.Fields(what)...).Run() // refused where it names what is not there
				}
				sameAsRead(t, m, fmt.Sprintf("change %d, %s,", n, what))
			}
		})
	}
}

func TestMirrorReadsNothingAnewForElements(t *testing.T) {
	netns.Test(t)
	ctx, a, table := context.Background(), applier(t), selections(true)
	if err := a.Apply(ctx, table); err != nil {
		t.Fatal(err)
	}
	m := &mirror{of: ipv4, table: table.Name, room: announcements}
	first := sameAsRead(t, m, "nothing")
	nft(t, "add", "table", "ip", "beside") // another generation
	for i := range 20 {
		table.Sets[0].Addrs = append(table.Sets[0].Addrs, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
		if err := a.Apply(ctx, table); err != nil {
			t.Fatal(err)
		}
		if sameAsRead(t, m, "an Apply") != first {
			t.Fatal("the table was read anew")
		}
	}
}

// TestMirrorThatMissedSomething has no room for what is announced.
func TestMirrorThatMissedSomething(t *testing.T) {
	netns.Test(t)
	nft(t, "add table ip sally_edit { set peers { type ipv4_addr; }; }")
	m := &mirror{of: ipv4, table: "sally_edit", room: 1}
	sameAsRead(t, m, "nothing")
	for i := range 50 {
		nft(t, fmt.Sprintf("add element ip sally_edit peers { 10.0.%d.1, 10.1.%d.1, 10.2.%d.1, 10.3.%d.1 }", i, i, i, i))
		if i%10 == 9 {
			sameAsRead(t, m, "more than there is room for")
		}
	}
}
