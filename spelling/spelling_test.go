package spelling

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"destinations", "namespaceSelector", "podSelector", "vip", "cidr", "NODE_NAME", "NODE_IP"}
	for word, want := range map[string]string{
		"destinatons": "destinations", "destination": "destinations", "destinatinos": "destinations",
		"podselector": "podSelector", "vpi": "vip", "vips": "vip", "cdir": "cidr", "NODENAME": "NODE_NAME", "NODE_NAMES": "NODE_NAME",
		"BIN": "", "": "", "ports": "", "selector": "", "address": "", "NODE": "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}
