package kube

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func dial(port int, err error) error {
	return &url.Error{Op: "Get", URL: "https://192.0.2.1:6443", Err: &net.OpError{
		Op: "dial", Net: "tcp", Source: &net.TCPAddr{Port: port}, Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 6443}, Err: err,
	}}
}

func TestErrorsAreExplained(t *testing.T) {
	group := schema.GroupResource{Group: "sallyport.dev", Resource: "egressroutes"}
	for _, c := range []struct {
		name     string
		resource string
		err      error
		object   string
		message  string
	}{
		{"no definition", "egressroutes", apierrors.NewNotFound(group, ""), "API resource egressroutes", "helm upgrade --install"},
		{"no right", "pods", apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", fmt.Errorf(`User "u" cannot list`)), "API resource pods", `User "u" cannot list`},
		{"no credentials", "pods", apierrors.NewUnauthorized("token expired"), "API server S", "renew"},
		{"an ill server", "pods", apierrors.NewServiceUnavailable("etcd"), "API server S", "ServiceUnavailable"},
		{"refused", "pods", dial(1, syscall.ECONNREFUSED), "API server S", "refuses connections"},
		{"no route", "pods", dial(1, syscall.EHOSTUNREACH), "API server S", "no route"},
		{"silence", "pods", dial(1, syscall.ETIMEDOUT), "API server S", "does not answer"},
		{"a wrong certificate", "pods", &url.Error{Op: "Get", Err: x509.UnknownAuthorityError{}}, "API server S", "certificate authority"},
		{"a broken connection", "pods", dial(1, syscall.ECONNRESET), "API server S", "broke"},
	} {
		t.Run(c.name, func(t *testing.T) {
			troubles := newTroubles("S", slog.New(slog.DiscardHandler))
			troubles.met("one", c.resource, c.err)
			p := troubles.problems()
			if len(p) != 1 || p[0].Object != c.object || !strings.Contains(p[0].Message, c.message) || !strings.Contains(p[0].Message, "stays in force") {
				t.Errorf("problems %+v", p)
			}
		})
	}
}

func TestATroubleIsSaidOnce(t *testing.T) {
	var log bytes.Buffer
	troubles := newTroubles("S", slog.New(slog.NewTextHandler(&log, nil)))
	lines := func() string {
		defer log.Reset()
		var levels []string
		for line := range strings.Lines(log.String()) {
			_, rest, _ := strings.Cut(line, "level=")
			level, _, _ := strings.Cut(rest, " ")
			levels = append(levels, level)
		}
		return strings.Join(levels, " ")
	}
	troubles.over("pods") // never met
	troubles.met("pods", "pods", dial(1, syscall.ECONNREFUSED))
	troubles.met("pods", "pods", dial(2, syscall.ECONNREFUSED))
	troubles.met("nodes", "nodes", dial(3, syscall.ECONNREFUSED))
	if got := lines(); got != "ERROR" || len(troubles.problems()) != 1 {
		t.Errorf("lines %q, problems %+v", got, troubles.problems())
	}
	troubles.met("nodes", "nodes", dial(4, syscall.EHOSTUNREACH))
	if got := lines(); got != "ERROR" || len(troubles.problems()) != 2 {
		t.Errorf("lines %q, problems %+v", got, troubles.problems())
	}
	troubles.met("nodes", "nodes", dial(5, syscall.ECONNREFUSED))
	troubles.over("pods")
	if got := lines(); got != "" {
		t.Errorf("lines %q while one is left", got)
	}
	troubles.over("nodes")
	if got := lines(); got != "INFO" || len(troubles.problems()) != 0 {
		t.Errorf("lines %q, problems %+v", got, troubles.problems())
	}
}
