package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

const (
	scalePods   = 5000
	scaleRoutes = 1000
	// settling is how long a program is left alone before its memory is read.
	settling = 5 * time.Second
)

// burden is what many pods and routes cost one program.
type burden struct {
	apply, ready   trials // seconds of a cold start
	resident, peak trials // MB
	onePod         trials // seconds from the change of a file to the kernel
	oneApply       trials // the part of it from the view to the kernel
}

func (b *bench) scale(ctx context.Context) (_ string, err error) {
	// One node has all the pods, the hardest case for an agent.
	w, err := b.up("s", lab.Options{Nodes: 1})
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, w.LogTails(10))
		}
		err = errors.Join(err, w.Close())
	}()
	progress("scale: writing %d pods and %d routes", scalePods, scaleRoutes)
	err = errors.Join(w.AddFakeRoutes(scaleRoutes), w.AddFakePods(scalePods, fakeRoute))
	if err != nil {
		return "", err
	}
	results := map[lab.Role]*burden{lab.Agent: {}, lab.Gateway: {}}
	for n := range b.trials {
		if !b.wants("cold") {
			break
		}
		for _, role := range []lab.Role{lab.Agent, lab.Gateway} {
			if err := w.coldStart(ctx, role, results[role]); err != nil {
				return "", fmt.Errorf("cold start %d of the %s: %w", n+1, role, err)
			}
			r := results[role]
			progress("scale %d/%d %-7s cold apply %4.0f ms, ready after %4.0f ms, %3.0f MB resident, %3.0f at most",
				n+1, b.trials, role, 1e3*r.apply[n], 1e3*r.ready[n], r.resident[n], r.peak[n])
		}
	}
	endToEnd, err := b.onePod(ctx, w, results)
	if err != nil {
		return "", err
	}
	return scaleText(results, endToEnd), nil
}

func fakeRoute(i int) string { return fmt.Sprintf("fake-%d", i%scaleRoutes) }

// coldStart starts one program alone on a host that has nothing of ours, not even
// its last view, and ends it again.
func (w *world) coldStart(ctx context.Context, role lab.Role, r *burden) error {
	if _, err := w.Exec(lab.NodeName(1), w.Options.Binary, "cleanup"); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(w.Options.Dir, "state", string(role)+"-"+lab.NodeName(1))); err != nil {
		return fmt.Errorf("remove the last view: %w", err)
	}
	began := time.Now()
	p, err := w.Start(role, 1)
	if err != nil {
		return err
	}
	if err := lab.Await(patience, w.ready(role, 1)); err != nil {
		return errors.Join(err, p.Kill())
	}
	r.ready.add(time.Since(began))
	s, err := w.status(role, 1)
	if err != nil {
		return errors.Join(err, p.Kill())
	}
	r.apply = append(r.apply, s.Apply.Seconds)
	if err := wait(ctx, settling); err != nil {
		return errors.Join(err, p.Kill())
	}
	resident, peak, err := memoryOf(p.Pid)
	r.resident, r.peak = append(r.resident, resident), append(r.peak, peak)
	return errors.Join(err, p.Stop())
}

// memoryOf a process: what is resident and the most that was, in MB.
func memoryOf(pid int) (resident, peak float64, err error) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	for name, to := range map[string]*float64{"VmRSS": &resident, "VmHWM": &peak} {
		kib, perr := strconv.ParseFloat(strings.TrimSuffix(field(path, name), " kB"), 64)
		if perr != nil {
			err = errors.Join(err, fmt.Errorf("read %s of process %d: %w", name, pid, perr))
		}
		*to = kib * 1024 / 1e6
	}
	return resident, peak, err
}

// onePod changes one file at a time, with both programs running, and gives the time
// until a new connection of a pod was answered as the VIP.
func (b *bench) onePod(ctx context.Context, w *world, results map[lab.Role]*burden) (endToEnd trials, err error) {
	if err := w.start(); err != nil {
		return nil, err
	}
	changes, err := watchSets(w, lab.NodeName(1))
	if err != nil {
		return nil, err
	}
	defer changes.close()
	for n := range b.trials {
		if err := wait(ctx, time.Second); err != nil { // nothing is coalesced with the change before
			return nil, err
		}
		addr := netip.AddrFrom4([4]byte{10, 246, byte(n >> 8), byte(n)})
		seen := changes.expect(addr)
		began := time.Now()
		if err := w.Manifests.WritePod(lab.PodManifest{
			Namespace: "default", Name: fmt.Sprintf("late-%d", n), Node: lab.NodeName(1), Addr: addr,
			Labels: map[string]string{"app": "late"}, Annotations: map[string]string{lab.RoutesAnnotation: fakeRoute(n)},
		}); err != nil {
			return nil, err
		}
		// Whoever is asked for its status takes the processor from the other: both first.
		for role, table := range map[lab.Role]string{lab.Agent: agentTable, lab.Gateway: gatewayTable} {
			at, err := seen.in(ctx, table)
			if err != nil {
				return nil, err
			}
			results[role].onePod.add(at.Sub(began))
		}
		for role, r := range results {
			took, err := w.applied(role, began)
			if err != nil {
				return nil, err
			}
			r.oneApply.add(took)
		}
		took, err := w.selectPod(ctx)
		if err != nil {
			return nil, err
		}
		endToEnd.add(took)
		progress("scale %d/%d one pod: agent's kernel %3.0f ms (apply %.0f), gateway's %3.0f ms (apply %.0f); a pod's first connection as the VIP %3.0f ms",
			n+1, b.trials, 1e3*results[lab.Agent].onePod[n], 1e3*results[lab.Agent].oneApply[n],
			1e3*results[lab.Gateway].onePod[n], 1e3*results[lab.Gateway].oneApply[n], 1e3*took.Seconds())
	}
	return endToEnd, nil
}

// applied is how long the first apply since then took, once it is over: what it changes is
// announced before.
func (w *world) applied(role lab.Role, since time.Time) (took time.Duration, err error) {
	err = lab.Await(patience, func() error {
		s, err := w.status(role, 1)
		if err == nil && s.Apply.At.Before(since) {
			err = fmt.Errorf("the %s has not applied the change yet", role)
		}
		took = time.Duration(s.Apply.Seconds * float64(time.Second))
		return err
	})
	return took, err
}

// selectPod opts a pod in whose new connections are tried every 2 ms, and gives the
// time to the first answer.
func (w *world) selectPod(ctx context.Context) (took time.Duration, err error) {
	if err := w.Annotate(pod(1), ""); err != nil {
		return 0, err
	}
	if err := wait(ctx, time.Second); err != nil {
		return 0, err
	}
	c, err := w.StartConnects(pod(1), lab.PartnerAddr, 2*time.Millisecond)
	if err != nil {
		return 0, err
	}
	defer c.Stop()
	if err := wait(ctx, 50*time.Millisecond); err != nil {
		return 0, err
	}
	if n := len(c.Report().Answers()); n > 0 {
		return 0, fmt.Errorf("%d connections were answered before the pod was selected", n)
	}
	began := time.Now()
	if err := w.Annotate(pod(1), "payments"); err != nil {
		return 0, err
	}
	err = lab.Await(patience, func() error {
		answers := c.Report().Answers()
		if len(answers) == 0 {
			return errors.New("no connection is answered")
		}
		took = answers[0].Sub(began)
		return nil
	})
	return took, err
}

func scaleText(results map[lab.Role]*burden, endToEnd trials) string {
	rows := [][]string{{"median / p95", "agent", "gateway"}}
	add := func(title string, cell func(*burden) string) {
		rows = append(rows, []string{title, cell(results[lab.Agent]), cell(results[lab.Gateway])})
	}
	megabytes := func(t trials) string { return fmt.Sprintf("%.0f / %.0f", t.median(), t.quantile(.95)) }
	add("cold apply, ms", func(r *burden) string { return r.apply.millis() })
	add("start of the process to ready, ms", func(r *burden) string { return r.ready.millis() })
	add("one new pod, file to kernel, ms", func(r *burden) string { return r.onePod.millis() })
	add("the part of it that is apply, ms", func(r *burden) string { return r.oneApply.millis() })
	add("resident after "+settling.String()+", MB", func(r *burden) string { return megabytes(r.resident) })
	add("resident at most, MB", func(r *burden) string { return megabytes(r.peak) })
	text := fmt.Sprintf(`## Scale

%d pods, all on one node, and %d routes in the folder; nftables. A cold start finds nothing of ours on the host and no saved view; its
apply is what /status gives. "File to kernel" begins before the file is written and ends when the kernel announces
the set's new element. Memory is VmRSS and VmHWM.

%s
With both running, a pod that opts in has its first new connection answered as the VIP %s ms
(median / p95) after its file is written; it tries one every 2 ms.

`, scalePods, scaleRoutes, table(rows), endToEnd.millis())
	for _, role := range []lab.Role{lab.Agent, lab.Gateway} {
		r := results[role]
		text += verdict(fmt.Sprintf("%s, cold apply, s", role), r.apply.median(), 2, r.apply.median() <= 2, "%.2f")
		text += verdict(fmt.Sprintf("%s, one pod, ms", role), 1e3*r.onePod.median(), 50, r.onePod.median() <= .05, "%.0f")
		text += verdict(fmt.Sprintf("%s, resident, MB", role), r.resident.median(), 80, r.resident.median() <= 80, "%.0f")
	}
	return text
}
