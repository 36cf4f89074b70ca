package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/sallyport/sallyport/e2e/lab"
)

// changeRoutes lets routes come that are none of the traffic's business, some of them
// bad, and changes those that it takes; the mend takes all of it back.
func (w *world) changeRoutes() (mend func() error, err error) {
	const noise, broken = 20, "egressroute-broken.yaml"
	err = errors.Join(
		w.AddFakeRoutes(noise),
		w.Manifests.WriteText(broken, "apiVersion: sallyport.dev/v1alpha1\nkind: EgressRoute\nmetadata: {name: [broken"),
		w.Manifests.WriteRoute("stranger", "vip: 192.0.2.99\nnamespaceSelector: {}\ndestinations: [{cidr: 198.51.100.0/24}]\n"),
		w.Manifests.WriteRoute("bad", "vip: nobody\nnamespaceSelector: {}\ndestinations: [{cidr: 203.0.113.5/99}]\n"),
		w.writeRoutes("- cidr: 198.51.100.0/24\n"),
	)
	return func() error {
		errs := []error{w.Manifests.WriteText(broken, ""), w.Manifests.Remove("EgressRoute", "", "broken")}
		for i := range noise {
			errs = append(errs, w.Manifests.Remove("EgressRoute", "", fmt.Sprintf("fake-%d", i)))
		}
		return errors.Join(append(errs, w.Manifests.Remove("EgressRoute", "", "stranger"),
			w.Manifests.Remove("EgressRoute", "", "bad"), w.writeRoutes(""))...)
	}, err
}

// changePods lets a selected pod come to node j, whose first act is to connect; when it
// has gone with its connection, another that is not selected has its address.
func (w *world) changePods(ctx context.Context, j int) error {
	guest, err := w.AddPod(lab.PodSpec{Name: "guest", Node: j, Annotations: map[string]string{lab.RoutesAnnotation: allRoutes}})
	if err != nil {
		return err
	}
	var s *lab.Stream
	if err := w.await(ctx, backWithin, func() (err error) {
		s, err = w.StartListening("guest", lab.PartnerAddr)
		return err
	}); err != nil {
		return err
	}
	if got := s.Source().Addr(); got != tcpVIP {
		return violated("a new pod on n%d, %s, was seen from %s", j, guest.Addr, got)
	}
	err = w.RemovePod("guest")
	s.Stop()
	if err == nil {
		err = w.await(ctx, backWithin, func() error { return w.forgotten(guest.Addr) })
	}
	if err == nil {
		_, err = w.AddPod(lab.PodSpec{Name: "heir", Node: j, Addr: guest.Addr})
	}
	if err == nil {
		err = w.seenAs(ctx, "heir", lab.PublicAddr, w.NodeIP(j))
	}
	return errors.Join(err, w.RemovePod("heir"))
}

func (w *world) seenAs(ctx context.Context, pod string, at, want netip.Addr) error {
	return w.await(ctx, backWithin, func() error {
		got, err := w.SeenAs(pod, at, lab.ConnectTimeout)
		if err == nil && got != want {
			err = fmt.Errorf("%s is seen at %s as %s, not as %s", pod, at, got, want)
		}
		return err
	})
}

// reinstall drains node j, ends its programs, and cleans up after them; the mend brings
// pods and programs back.
func (w *world) reinstall(j int) (mend func() error, err error) {
	w.hangUp(j)
	errs := []error{w.RemovePod(selected(j)), w.RemovePod(unselected(j)), w.endBoth(j)}
	for _, r := range bothRoles {
		_, err := w.Exec(lab.NodeName(j), w.Options.Binary, "cleanup", "--state-dir", w.StateDir(r, j))
		errs = append(errs, err)
	}
	left, err := w.FindOurs(lab.NodeName(j))
	if errs = append(errs, err); len(left) > 0 {
		errs = append(errs, violated("cleanup has left on n%d:\n%s", j, strings.Join(left, "\n")))
	}
	return func() error {
		_, first := w.AddPod(lab.PodSpec{Name: selected(j), Node: j, Annotations: map[string]string{lab.RoutesAnnotation: allRoutes}})
		_, second := w.AddPod(lab.PodSpec{Name: unselected(j), Node: j})
		return errors.Join(first, second, w.start(j))
	}, errors.Join(errs...)
}
