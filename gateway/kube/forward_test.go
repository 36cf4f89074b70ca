package kube

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

// channel is one stream of the kubelet's protocol: the first byte of each message
// names it.
type channel struct {
	conn *websocket.Conn
	id   byte
}

func (c *channel) Write(p []byte) (int, error) {
	return len(p), websocket.Message.Send(c.conn, append([]byte{c.id}, p...))
}

func (c *channel) Read(p []byte) (int, error) {
	var message []byte
	if err := websocket.Message.Receive(c.conn, &message); err != nil {
		return 0, err
	}
	if len(message) == 0 || message[0] != c.id || len(message)-1 > len(p) {
		return 0, fmt.Errorf("message %q on channel %d", message, c.id)
	}
	return copy(p, message[1:]), nil
}

// kubelet serves port-forwards as the kubelet does, with the WebSocket library that
// it uses. The forward function has the stream of the port and says what went wrong.
func kubelet(t *testing.T, forward func(stream io.ReadWriter) error) *Forwarder {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if want := "/api/v1/namespaces/sallyport/pods/gw-0/portforward?ports=9871"; r.URL.String() != want {
			t.Errorf("asked for %s, want %s", r.URL, want)
		}
		if got := r.Header.Get("Authorization"); got != "Bearer secret" {
			t.Errorf("authorization %q", got)
		}
		websocket.Server{
			Handshake: func(c *websocket.Config, _ *http.Request) error {
				if len(c.Protocol) != 1 || c.Protocol[0] != "v4.channel.k8s.io" {
					return fmt.Errorf("protocols %q", c.Protocol)
				}
				return nil
			},
			Handler: func(conn *websocket.Conn) {
				conn.PayloadType = websocket.BinaryFrame
				data, said := &channel{conn: conn, id: 0}, &channel{conn: conn, id: 1}
				for _, c := range []*channel{data, said} {
					_, _ = c.Write(binary.LittleEndian.AppendUint16(nil, 9871))
				}
				if err := forward(data); err != nil {
					fmt.Fprint(said, err)
				}
			},
		}.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	f, err := NewForwarder(&rest.Config{Host: server.URL, BearerToken: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestForwarderGetsLargeAnswersFromAPodsPort(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 20_000) // longer than any one message
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/status" {
			http.Error(w, "no such page", http.StatusNotFound)
			return
		}
		fmt.Fprint(w, body)
	}))
	defer web.Close()
	f := kubelet(t, func(stream io.ReadWriter) error {
		conn, err := net.Dial("tcp", strings.TrimPrefix(web.URL, "http://"))
		if err != nil {
			return err
		}
		defer conn.Close()
		go func() { _, _ = io.Copy(conn, stream) }()
		_, err = io.Copy(stream, conn)
		return err
	})
	got, err := f.Get(t.Context(), "sallyport", "gw-0", 9871, "/status")
	if err != nil || string(got) != body {
		t.Errorf("%d bytes of %d: %v", len(got), len(body), err)
	}
	if _, err := f.Get(t.Context(), "sallyport", "gw-0", 9871, "/nothing"); err == nil || !strings.Contains(err.Error(), "404 Not Found: no such page") {
		t.Errorf("error %v", err)
	}
}

func TestForwarderCarriesBothWays(t *testing.T) {
	f := kubelet(t, func(stream io.ReadWriter) error {
		_, err := io.Copy(stream, stream)
		return err
	})
	conn, err := f.Dial(t.Context(), "sallyport", "gw-0", 9871)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	long := strings.Repeat("0123456789abcdef", 10_000) // more than one message takes
	go func() { _, _ = io.WriteString(conn, long) }()
	got := make([]byte, len(long))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != long {
		t.Errorf("not what was sent: %v", err)
	}
}

func TestForwarderEndsWithTheContext(t *testing.T) {
	f := kubelet(t, func(stream io.ReadWriter) error {
		_, err := io.Copy(io.Discard, stream)
		return err
	})
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := f.Dial(ctx, "sallyport", "gw-0", 9871)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes", n)
	}
}

func TestForwarderSaysWhatTheKubeletSays(t *testing.T) {
	f := kubelet(t, func(io.ReadWriter) error { return errors.New("connect: connection refused") })
	if _, err := f.Get(t.Context(), "sallyport", "gw-0", 9871, "/status"); err == nil || !strings.Contains(err.Error(), "port 9871: connect: connection refused") {
		t.Errorf("error %v", err)
	}
}

func TestForwarderDoesNotWaitForAPodThatHangs(t *testing.T) {
	f := kubelet(t, func(stream io.ReadWriter) error {
		_, err := io.Copy(io.Discard, stream) // until the client goes away
		return err
	})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("no answer in time"))
	defer cancel()
	if _, err := f.Get(ctx, "sallyport", "gw-0", 9871, "/status"); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("error %v", err)
	}
}

func TestForwarderTellsThatItIsForbidden(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"pods \"gw-0\" is forbidden: User \"eve\" cannot get resource \"pods/portforward\""}`)
	}))
	defer server.Close()
	f, err := NewForwarder(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Get(t.Context(), "sallyport", "gw-0", 9871, "/status")
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "pods/portforward") {
		t.Errorf("error %v", err)
	}
}
