package main

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway/host"
)

// What is printed in the first seconds tells what is awaited.
func TestStatusOfTheFirstSeconds(t *testing.T) {
	age := 90.0
	for _, c := range []struct {
		name      string
		status    host.Status
		want, not string
	}{
		{"no view", host.Status{}, "has given no view yet, and none was saved", "last good view"},
		{"saved view", host.Status{ViewAgeSeconds: &age}, "the last good view is used, 1m30s old", "no view yet"},
		{"first view", host.Status{Live: true}, "on its way to the kernel", "does not answer"},
		{"all well", host.Status{Live: true, Apply: host.Apply{Done: true}}, "No problems", "view"},
		{"alone", host.Status{Program: "gateway", Live: true, VIPs: []host.VIP{{Replicas: 3, Voters: []string{"n1"}, Barred: "eth0 is down"}}},
			"eth0 is down; 2 of the 3 gateways must hear each other", "does not answer"},
		{"electing", host.Status{Program: "gateway", Live: true, VIPs: []host.VIP{{Replicas: 3, Voters: []string{"n1", "n2"}}}}, "nobody", "must hear"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			if err := printStatus(&out, c.status, time.Now()); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), c.want) || strings.Contains(out.String(), c.not) {
				t.Errorf("want %q and not %q:\n%s", c.want, c.not, &out)
			}
		})
	}
}
