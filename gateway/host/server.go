package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/trace"
)

// Program is what the HTTP endpoint asks.
type Program interface {
	Status(ctx context.Context) Status
	// Healthy is an error while a loop of the program is stuck.
	Healthy() error
	// Ready is an error until the program does its part.
	Ready() error
	// Trace looks at what this host makes of a packet.
	Trace(ctx context.Context, q trace.Question, vip netip.Addr) TraceAnswer
	// Doctor is what this host shows.
	Doctor(ctx context.Context) doctor.Host
}

// Serve answers on addr until the context ends: /status, /trace, /doctor, /healthz, /readyz and
// /metrics, and of a gateway its page and POST /handover. Who is not on this host needs the
// token in tokenFile for what names pods; "": for the page, which is then not to be had, alone.
// It binds at once, so that a clash of ports is an error at start.
func Serve(ctx context.Context, addr, tokenFile string, p Program, metrics *Metrics, log *slog.Logger) error {
	seen := guard(tokenFile)
	if err := seen.check(); err != nil {
		return err
	}
	listener, err := listen("--http", addr)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics, statusCollector{p})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", seen.data(true, serveStatus(p)))
	mux.HandleFunc("GET /trace", seen.data(true, serveTrace(p)))
	mux.HandleFunc("GET /doctor", seen.data(true, serveDoctor(p)))
	if paged, ok := p.(interface {
		Page() (document, events http.HandlerFunc)
	}); ok {
		document, events := paged.Page()
		mux.HandleFunc("GET /{$}", seen.document(document))
		mux.HandleFunc("GET /events", seen.data(false, events))
	}
	mux.HandleFunc("GET /healthz", verdict(p.Healthy))
	mux.HandleFunc("GET /readyz", verdict(p.Ready))
	if h, ok := p.(handsOver); ok {
		mux.HandleFunc("POST /handover", handOver(h))
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	if more, ok := p.(interface {
		Handlers() map[string]http.Handler
	}); ok {
		for pattern, h := range more.Handlers() {
			mux.Handle(pattern, h)
		}
	}
	return serve(ctx, listener, "--http", mux, log)
}

// connections that a listener for others than the node has at most.
const connections = 1024

// ServeOnly answers on addr until the context ends, what the handlers do and nothing
// else. The flag is the one that the address was given by.
func ServeOnly(ctx context.Context, flag, addr string, handlers map[string]http.Handler, log *slog.Logger) error {
	listener, err := listen(flag, addr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	for pattern, h := range handlers {
		mux.Handle(pattern, h)
	}
	return serve(ctx, netutil.LimitListener(listener, connections), flag, mux, log)
}

func listen(flag, addr string) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if err == nil {
		return listener, nil
	}
	hint := "give ADDRESS:PORT"
	if errors.Is(err, syscall.EADDRINUSE) {
		hint = "give another address and port, or end what has it: the program tries again when it is restarted"
	}
	if at, ok := netip.ParseAddrPort(addr); ok == nil {
		err = PortTaken(err, "tcp", at.Port())
	}
	return nil, fmt.Errorf("listen for %s %s: %w (%s)", flag, addr, err, hint)
}

func serve(ctx context.Context, listener net.Listener, flag string, handler http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s %s: %w", flag, listener.Addr(), err)
	}
	return nil
}

func serveStatus(p Program) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		_ = enc.Encode(p.Status(r.Context())) // the client went away
	}
}

func verdict(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}
