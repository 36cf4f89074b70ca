package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/vip"
)

// TestAForeignOwnerOfTheVIPIsMetAndNamed: a misconfigured host has the VIP and claims it. The
// holder says once that it is its own, which brings the traffic back that went astray, and
// names that host; however often that one goes on, it is not fought with.
func TestAForeignOwnerOfTheVIPIsMetAndNamed(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Nodes: 4, GatewayNodes: []int{1, 2, 3}, GatewayArgs: unhurried})
	holder := w.holder()
	pods := others(w.Options.GatewayNodes, holder)
	for _, j := range pods {
		w.seenEventually(selected(j), partner, theVIP)
	}
	unasked := func() (said []lab.Utterance) {
		return slices.DeleteFunc(w.arp.Utterances(theVIP), func(u lab.Utterance) bool { return u.Answer || u.Node != holder })
	}
	// What is announced from now on is announced out of turn: the next is due in vip.Repeat.
	w.await(func() error {
		// Each is a request and a reply; the first may have been before the watch.
		if said := unasked(); len(said) == 0 || w.status(lab.Gateway, holder).VIPs[0].Since.Add(vip.Schedule[len(vip.Schedule)-1]).After(said[len(said)-1].At) {
			return fmt.Errorf("%d announcements of n%d, the claim's last is missing", len(said)/2, holder)
		}
		return nil
	})
	before := len(unasked())
	// No connection that is kept open: what comes for it astray, the other host resets.
	tr := &traffic{}
	for _, j := range pods {
		e, err := w.StartEcho(selected(j), partner, 5*time.Millisecond)
		w.must(err)
		c, err := w.StartConnects(selected(j), partner, 20*time.Millisecond)
		w.must(err)
		tr.echo, tr.connects = append(tr.echo, e), append(tr.connects, c)
	}
	w.flowsAgain(tr, time.Now())
	_, err := w.Exec("n4", "ip", "addr", "add", theVIP.String()+"/32", "dev", "eth0")
	w.must(err)
	struck := time.Now()
	w.must(w.Announce(4, theVIP))
	w.await(func() error {
		if len(unasked()) < before+2 {
			return fmt.Errorf("n%d does not say that the VIP is its own", holder)
		}
		return nil
	})
	w.flowsAgain(tr, time.Now())
	for range 20 { // it goes on, alone
		w.must(w.Announce(4, theVIP))
	}
	w.await(func() error {
		for _, p := range w.status(lab.Gateway, holder).Problems {
			if strings.Contains(p.Message, "take the address from that host") && strings.Contains(p.Message, lab.NodeMAC(4).String()) && strings.Contains(p.Object, theVIP.String()) {
				return nil
			}
		}
		return fmt.Errorf("n%d does not name the other owner", holder)
	})
	w.await(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, body, err := w.Get(ctx, lab.Gateway, holder, "/metrics")
		if err == nil && !regexp.MustCompile(`sallyport_vip_duplicate_owners_total\{vip="192.0.2.10"\} [1-9]`).Match(body) {
			err = fmt.Errorf("the metric does not count it: %s", body)
		}
		return err
	})
	w.answered(time.Now(), 5) // an answer of the holder comes behind all that it would have announced
	said := unasked()[before:]
	if allowed := 2 + 2*int(time.Since(struck)/vip.DefendInterval); len(said) > allowed {
		t.Errorf("the holder announced %d times within %v, want %d at most", len(said)/2, time.Since(struck), allowed/2)
	}
	for _, j := range pods {
		for _, p := range w.status(lab.Gateway, j).Problems {
			if strings.Contains(p.Message, "claims it as well") {
				t.Errorf("n%d, which stands by, takes the claim for a conflict: %s", j, p)
			}
		}
	}
	if now := w.holder(); now != holder {
		t.Errorf("n%d holds, it was n%d: a foreign claim is no reason to move", now, holder)
	}
	_, err = w.Exec("n4", "ip", "addr", "del", theVIP.String()+"/32", "dev", "eth0")
	w.must(err)
	// As the next announcement would, for those that the last word of n4 led astray.
	w.must(w.Announce(holder, theVIP))
	w.flowsAgain(tr, time.Now())
	for i := range tr.echo {
		tr.echo[i].Stop()
		tr.connects[i].Stop()
	}
	w.noLeak()
}

// TestAForeignOwnerIsFoundByWhoClaims: a host has the VIP silently when it fails over. It is no reason not to
// claim: who claims asks at once, names that host and tells the segment, and traffic goes on.
func TestAForeignOwnerIsFoundByWhoClaims(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Nodes: 4, GatewayNodes: []int{1, 2, 3}, GatewayArgs: unhurried})
	holder := w.holder()
	rest := others(w.Options.GatewayNodes, holder)
	w.arp.Stop() // its questions would have the other host answer, which is not to be heard otherwise
	e, err := w.StartEcho(selected(rest[0]), partner, 5*time.Millisecond)
	w.must(err)
	flows := func() {
		t.Helper()
		now := time.Now()
		w.await(func() error {
			if _, ok := e.Report().NextReply(now); !ok {
				return errors.New("no answer")
			}
			return nil
		})
	}
	flows()
	_, err = w.Exec("n4", "ip", "addr", "add", theVIP.String()+"/32", "dev", "eth0")
	w.must(err)
	w.must(w.gateway(holder).Kill())
	heir := w.awaitHolder(rest...)
	w.await(func() error {
		for _, p := range w.status(lab.Gateway, heir).Problems {
			if strings.Contains(p.Message, lab.NodeMAC(4).String()) {
				return nil
			}
		}
		return fmt.Errorf("n%d does not name the other owner", heir)
	})
	v := w.status(lab.Gateway, heir).VIPs[0]
	if !v.Held || v.DuplicateOwners == 0 {
		t.Errorf("n%d: %+v", heir, v)
	}
	log, err := os.ReadFile(w.gateway(heir).Log)
	w.must(err)
	for _, what := range []string{`"holder changed"`, `"another host claims the VIP"`} {
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, what) {
				t.Logf("n%d: %s", heir, strings.TrimSpace(line))
			}
		}
	}
	flows()
	e.Stop()
	w.noLeak()
}
