package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Get fetches a path ("/status", "/metrics") of a program on node j.
func (l *Lab) Get(ctx context.Context, role Role, j int, path string) (code int, body []byte, err error) {
	addr := GatewayHTTP
	if role == Agent {
		addr = AgentHTTP
	}
	return l.Fetch(ctx, NodeName(j), "http://"+addr+path)
}

// Fetch makes one HTTP request from a host of the lab.
func (l *Lab) Fetch(ctx context.Context, from, url string) (code int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("get %s: %w", url, err)
	}
	return l.Ask(from, req)
}

// Ask makes any HTTP request from a host of the lab.
func (l *Lab) Ask(from string, req *http.Request) (code int, body []byte, err error) {
	m, err := l.machine(from)
	if err != nil {
		return 0, nil, err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			err = m.Do(func() error {
				c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
				return err
			})
			return c, err
		},
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("from %s: %w", from, err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// Status is what a program on node j says of itself, as JSON gives it.
func (l *Lab) Status(role Role, j int) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	code, body, err := l.Get(ctx, role, j, "/status")
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("status of %s: %d %s", programKey{role, j}, code, bytes.TrimSpace(body))
	}
	var status map[string]any
	if err := json.Unmarshal(body, &status); err != nil {
		return nil, fmt.Errorf("status of %s: %w", programKey{role, j}, err)
	}
	return status, nil
}

// Ready asks a program on node j whether it does its work.
func (l *Lab) Ready(ctx context.Context, role Role, j int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	code, body, err := l.Get(ctx, role, j, "/readyz")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s is not ready: %s", programKey{role, j}, bytes.TrimSpace(body))
	}
	return err
}

// SeenAs connects from a pod to the TCPPort of an address and gives what the
// partner saw it as.
func (l *Lab) SeenAs(pod string, to netip.Addr, timeout time.Duration) (netip.Addr, error) {
	c, err := l.Dial(pod, netip.AddrPortFrom(to, TCPPort), timeout)
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(timeout))
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("from %s to %s: %w", pod, to, err)
	}
	ap, err := netip.ParseAddrPort(strings.TrimSpace(string(buf[:n])))
	return ap.Addr(), err
}

// Holders are the nodes whose kernel has the VIP's address: what is configured,
// which the fence may silence, and not what anybody says of himself.
func (l *Lab) Holders(vip netip.Addr) ([]int, error) {
	var holders []int
	for j := 1; j <= l.Options.Nodes; j++ {
		m, err := l.machine(NodeName(j))
		if err != nil {
			return nil, err
		}
		addrs, err := m.nl.AddrList(nil, 2) // AF_INET
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", m.Name, err)
		}
		for _, a := range addrs {
			if got, ok := netip.AddrFromSlice(a.IP); ok && got.Unmap() == vip {
				holders = append(holders, j)
				break
			}
		}
	}
	return holders, nil
}

// Await polls until the condition holds: the end of a change that announces
// itself to nobody. What the condition says last is in the error.
func Await(timeout time.Duration, condition func() error) error {
	return AwaitContext(context.Background(), timeout, condition)
}

// AwaitContext is Await that also ends with its context.
func AwaitContext(ctx context.Context, timeout time.Duration, condition func() error) error {
	return AwaitEvery(ctx, 5*time.Millisecond, timeout, condition)
}

// AwaitEvery is AwaitContext for a condition that costs too much to be looked at all
// the time.
func AwaitEvery(ctx context.Context, every, timeout time.Duration, condition func() error) error {
	deadline := time.Now().Add(timeout)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %w", timeout, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
