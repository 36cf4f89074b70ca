package iptables

import (
	"context"
	"slices"
	"strings"
	"testing"
)

func TestDetectInAKernel(t *testing.T) {
	inBoth(t, func(t *testing.T, a *Applier) {
		for range 3 {
			sh(t, string(a.variant.other())+" -A INPUT -j ACCEPT")
		}
		if got, err := Detect(context.Background()); err != nil || got != a.variant.other() {
			t.Errorf("by rules: %s, %v", got, err)
		}
		sh(t, string(a.variant)+" -t mangle -N KUBE-KUBELET-CANARY")
		if got, err := Detect(context.Background()); err != nil || got != a.variant {
			t.Errorf("by canary: %s, %v", got, err)
		}
		sh(t, string(a.variant.other())+" -t mangle -N KUBE-IPTABLES-HINT")
		if got, err := Detect(context.Background()); err != nil || got != a.variant.other() {
			t.Errorf("by hint: %s, %v", got, err)
		}
	})
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		saves   map[Variant]string
		version string
		want    Variant
	}{
		{map[Variant]string{NFT: "", Legacy: ""}, "iptables v1.8.9 (nf_tables)", NFT},
		{map[Variant]string{NFT: "", Legacy: ""}, "iptables v1.8.9 (legacy)", Legacy},
		{map[Variant]string{NFT: "", Legacy: ""}, "iptables v1.6.1", Legacy},
		{map[Variant]string{NFT: "", Legacy: ""}, "", NFT},
		{map[Variant]string{Legacy: ""}, "iptables v1.8.9 (nf_tables)", Legacy},
		{map[Variant]string{NFT: ""}, "iptables v1.8.9 (legacy)", NFT},
		{map[Variant]string{NFT: "*filter\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n", Legacy: "*filter\n-A INPUT\nCOMMIT\n"}, "", Legacy},
	} {
		if got := choose(c.saves, c.version); got != c.want {
			t.Errorf("%v, %q: %s, want %s", c.saves, c.version, got, c.want)
		}
	}
}

// TestRivals makes masquerades of others, of which some cannot win.
func TestRivals(t *testing.T) {
	inBoth(t, func(t *testing.T, a *Applier) {
		ctx := context.Background()
		apply(t, a, every())
		if got, err := a.Rivals(ctx); err != nil || len(got) != 0 {
			t.Errorf("rivals %v, %v where there are none", got, err)
		}
		o := string(a.variant.other())
		sh(t, o+" -t nat -N CNI; "+o+" -t nat -A POSTROUTING -j CNI; "+o+" -t nat -A CNI -s 10.0.0.0/8 -j MASQUERADE; "+o+" -t nat -N LOOSE; "+o+" -t nat -A LOOSE -j MASQUERADE")
		sh(t, string(a.variant)+" -t nat -A POSTROUTING -j MASQUERADE")
		sh(t, `nft 'table ip cni { chain post { type nat hook postrouting priority 100; jump more; }; chain more { masquerade; }; }
			table inet first { chain post { type nat hook postrouting priority srcnat - 5; ip saddr 10.0.0.0/8 snat ip to 192.0.2.1; }; }
			table ip late { chain post { type nat hook postrouting priority 110; masquerade; }; }
			table ip sally_own { chain post { type nat hook postrouting priority 95; masquerade; }; }'`)
		got, err := a.Rivals(ctx)
		want := []string{
			o + " -t nat -A CNI -s 10.0.0.0/8 -j MASQUERADE",
			"nft table ip cni, chain more: masquerade",
			"nft table inet first, chain post: ip saddr 10.0.0.0/8 snat ip to 192.0.2.1",
		}
		slices.Sort(got)
		slices.Sort(want)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("rivals %v, %v, want:\n%s", err, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}
