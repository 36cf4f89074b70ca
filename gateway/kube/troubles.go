package kube

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/gateway"
)

// troubles are what keeps resources from being followed now. Each is said once, and
// once that it is over.
type troubles struct {
	server string // how to name it
	log    *slog.Logger

	mu  sync.Mutex
	now map[string]gateway.Problem // by what is followed
}

func newTroubles(server string, log *slog.Logger) *troubles {
	return &troubles{server: server, log: log, now: map[string]gateway.Problem{}}
}

// met enters why what is followed is not to be had.
func (t *troubles) met(followed, resource string, err error) {
	object, message := t.explain(resource, err)
	t.note(followed, gateway.Problem{
		Object: object, Reason: gateway.Unreadable,
		Message: message + "; what was read before stays in force",
	})
}

func (t *troubles) note(followed string, p gateway.Problem) {
	t.mu.Lock()
	defer t.mu.Unlock()
	said := false
	for _, other := range t.now {
		said = said || other == p
	}
	t.now[followed] = p
	if !said {
		t.log.Error("the API server does not give all that is needed", "object", p.Object, "message", p.Message)
	}
}

// over enters that it is to be had.
func (t *troubles) over(followed string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, was := t.now[followed]
	delete(t.now, followed)
	if !was {
		return
	}
	for _, other := range t.now {
		if other == p {
			return
		}
	}
	t.log.Info("the API server gives it again", "object", p.Object)
}

func (t *troubles) problems() []gateway.Problem {
	t.mu.Lock()
	defer t.mu.Unlock()
	problems := make([]gateway.Problem, 0, len(t.now))
	for _, p := range t.now {
		problems = append(problems, p)
	}
	return gateway.SortProblems(problems)
}

// explain says what an error means and what to do. The text is the same for every
// attempt: ports and durations in it would make each another problem.
func (t *troubles) explain(resource string, err error) (object, message string) {
	server, kind := "API server "+t.server, "API resource "+resource
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var network net.Error
	var status apierrors.APIStatus
	switch {
	case apierrors.IsNotFound(err) && resource == v1alpha1.Plural:
		return kind, "the API server does not know it: its definition comes with the chart, install it with helm upgrade --install"
	case apierrors.IsForbidden(err):
		return kind, fmt.Sprintf("not allowed to read it (%v): grant get, list and watch to this program's account, as the chart's roles do", err)
	case apierrors.IsUnauthorized(err):
		return server, "it does not accept this program's credentials: renew those of the kubeconfig, or restart the pod when its account was made anew"
	case errors.As(err, &status):
		return server, fmt.Sprintf("it answers %q for %s: look into its health and its log", status.Status().Reason, resource)
	case errors.As(err, &unknown), errors.As(err, &hostname):
		return server, "its certificate is not one that the kubeconfig or the pod's account vouches for: correct the certificate authority or the server's address"
	case errors.Is(err, syscall.ECONNREFUSED):
		return server, "it refuses connections: start it, or correct its address"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return server, "there is no route to it: mend the network of this node"
	case errors.As(err, &network) && network.Timeout():
		return server, "it does not answer: look into its health and the network between"
	}
	return server, "the connection to it broke: look into its health and the network between"
}
