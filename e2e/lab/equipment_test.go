package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWhatIsMissingIsNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ip"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	err := Equipped()
	if err == nil || !strings.Contains(err.Error(), "iptables ipset nft (apt-get install iptables ipset nftables)") {
		t.Errorf("%v", err)
	}
	if _, err := FindBinary(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("%v", err)
	}
	if _, err := FindBinary(""); err == nil {
		t.Error("there is a sallyport beside the test binary")
	}
	if got, err := FindBinary(filepath.Join(dir, "ip")); err != nil || got != filepath.Join(dir, "ip") {
		t.Errorf("%s, %v", got, err)
	}
}

func TestAReportSinceAMoment(t *testing.T) {
	c, begin := newClient(), time.Now()
	for i := range 5 {
		c.ask(Exchange{Sent: begin.Add(time.Duration(i) * time.Second)})
	}
	for from, want := range map[time.Duration]int{-time.Second: 5, 0: 5, 2 * time.Second: 3, 2*time.Second + 1: 2, time.Minute: 0} {
		if got := c.Since(begin.Add(from)).Exchanges; len(got) != want || want > 0 && got[want-1].Sent != begin.Add(4*time.Second) {
			t.Errorf("since %s: %d exchanges, want %d", from, len(got), want)
		}
	}
}
