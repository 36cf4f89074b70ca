package main

import (
	"slices"
	"strings"
	"testing"
)

func TestSplitJoin(t *testing.T) {
	for _, c := range []struct{ join, addrs, inCluster string }{
		{"192.0.2.1,192.0.2.2:7964", "192.0.2.1 192.0.2.2:7964", ""},
		{"kube:sallyport/app=gateway", "", "kube:sallyport/app=gateway"},
		{"192.0.2.1,kube:ns/a/name=x,a/part!=y,gw.example", "192.0.2.1 gw.example", "kube:ns/a/name=x,a/part!=y"},
		{"kube:a/b=c,kube:d/e=f", "", "kube:a/b=c kube:d/e=f"},
		{"a=b,192.0.2.1", "a=b 192.0.2.1", ""}, // refused as an address
	} {
		addrs, inCluster := splitJoin(strings.Split(c.join, ","))
		if !slices.Equal(addrs, strings.Fields(c.addrs)) || !slices.Equal(inCluster, strings.Fields(c.inCluster)) {
			t.Errorf("%s: addresses %q, in the cluster %q", c.join, addrs, inCluster)
		}
	}
}
