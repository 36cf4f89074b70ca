// Package probe makes one real connection and says as which address the outside saw it.
package probe

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/reflect"
	"github.com/sallyport/sallyport/trace"
)

// Config of a probe.
type Config struct {
	To      gateway.Packet
	EchoURL string // of a server that answers with its client's address; "": To is asked
	Timeout time.Duration
}

// greeting is how long a destination has to say what it sees. Those that are no
// reflectors say nothing.
const greeting = 2 * time.Second

// Run connects from the network namespace of the calling process.
func Run(ctx context.Context, c Config) trace.Probe {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	seen, connected, err := c.run(ctx)
	p := trace.Probe{Connected: connected, Seen: seen}
	if err != nil {
		p.Error = err.Error()
	}
	return p
}

func (c Config) run(ctx context.Context) (seen netip.Addr, connected bool, err error) {
	if c.EchoURL != "" {
		return echo(ctx, c.EchoURL)
	}
	network := c.To.Protocol.String()
	if network == "sctp" {
		return seen, false, fmt.Errorf("probe %s: give a TCP or UDP port", c.To)
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, netip.AddrPortFrom(c.To.Dst, c.To.Port).String())
	if err != nil {
		return seen, false, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if c.To.Protocol == gateway.UDP {
		if _, err := conn.Write(reflect.Question()); err != nil {
			return seen, false, err
		}
	} else if soon := time.Now().Add(greeting); soon.Before(deadline) {
		deadline = soon
	}
	if err := conn.SetReadDeadline(deadline); err != nil {
		return seen, true, err
	}
	line, err := bufio.NewReader(io.LimitReader(conn, 256)).ReadString('\n')
	if err != nil && c.To.Protocol == gateway.UDP {
		return seen, false, fmt.Errorf("no answer: %w", err)
	}
	at, _ := netip.ParseAddrPort(strings.TrimSpace(line))
	return at.Addr().Unmap(), true, nil
}

// address finds an IPv4 address in whatever a server wraps it in.
var address = regexp.MustCompile(`\b\d{1,3}(\.\d{1,3}){3}\b`)

func echo(ctx context.Context, url string) (seen netip.Addr, connected bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return seen, false, fmt.Errorf("--echo-url %s: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return seen, false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return seen, true, err
	}
	seen, _ = netip.ParseAddr(string(address.Find(body)))
	return seen, true, nil
}
