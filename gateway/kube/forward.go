package kube

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// Forwarder reaches ports on the loopback of pods, as `kubectl port-forward` does: by
// way of the API server and the node's kubelet. (The API server's proxy would reach
// the pod's address only, where nothing of ours listens.)
type Forwarder struct {
	client *http.Client
	server *url.URL
}

// NewForwarder uses the credentials, proxy and certificates of the configuration.
func NewForwarder(config *rest.Config) (*Forwarder, error) {
	config = rest.CopyConfig(config)
	config.NextProtos = []string{"http/1.1"} // a connection of HTTP/2 cannot be taken over
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("prepare connections to the API server: %w", err)
	}
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("read the API server's address: %w", err)
	}
	return &Forwarder{client: client, server: server}, nil
}

// The streams of one port, in the kubelet's protocol v4.channel.k8s.io: the first
// byte of each message names one. Each begins with the port's number in two bytes.
const (
	channelProtocol = "v4.channel.k8s.io"
	dataStream      = 0
	errorStream     = 1
)

// Get asks the HTTP server on a port of the pod's loopback.
func (f *Forwarder) Get(ctx context.Context, namespace, pod string, port int, path string) ([]byte, error) {
	ws, err := f.dial(ctx, namespace, pod, port)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { ws.conn.Close() })
	defer func() {
		if stop() {
			ws.Close()
		}
	}()
	request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path)
	if _, err := ws.Write(append([]byte{dataStream}, request...)); err != nil {
		return nil, fmt.Errorf("ask port %d: %w", port, err)
	}
	data := &portStream{ws: ws}
	resp, err := http.ReadResponse(bufio.NewReader(data), nil)
	if err == nil {
		defer resp.Body.Close()
		var body []byte
		if body, err = io.ReadAll(resp.Body); err == nil && resp.StatusCode == http.StatusOK {
			return body, nil
		}
		if err == nil {
			err = fmt.Errorf("%s: %.200s", resp.Status, body)
		}
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case data.said != "":
		err = errors.New(data.said)
	}
	return nil, fmt.Errorf("read the answer of port %d: %w", port, err)
}

// Dial connects to a port of the pod's loopback. The connection lasts no longer than the
// context.
func (f *Forwarder) Dial(ctx context.Context, namespace, pod string, port int) (io.ReadWriteCloser, error) {
	ws, err := f.dial(ctx, namespace, pod, port)
	if err != nil {
		return nil, err
	}
	return &portStream{ws: ws, done: context.AfterFunc(ctx, func() { ws.conn.Close() })}, nil
}

// dial asks for the port and takes the connection over.
func (f *Forwarder) dial(ctx context.Context, namespace, pod string, port int) (*webSocket, error) {
	u := f.server.JoinPath("api/v1/namespaces", namespace, "pods", pod, "portforward")
	u.RawQuery = url.Values{"ports": {strconv.Itoa(port)}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("forward to pod %s/%s: %w", namespace, pod, err)
	}
	for key, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		// It guards against caches between, which TLS leaves no room for.
		"Sec-WebSocket-Key": base64.StdEncoding.EncodeToString([]byte("sallyport-status")), "Sec-WebSocket-Protocol": channelProtocol,
	} {
		req.Header.Set(key, value)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		var long *url.Error
		if errors.As(err, &long) { // the URL is of no use to the reader
			err = long.Err
		}
		return nil, fmt.Errorf("forward to pod %s/%s: %w", namespace, pod, err)
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		defer resp.Body.Close()
		return nil, fmt.Errorf("forward to pod %s/%s: %w", namespace, pod, refusal(resp))
	}
	return newWebSocket(conn), nil
}

// refusal is the API server's answer as an error that package apierrors knows.
func refusal(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	var status metav1.Status
	if err := json.Unmarshal(body, &status); err == nil && status.Kind == "Status" {
		return apierrors.FromObject(&status)
	}
	return apierrors.NewGenericServerResponse(resp.StatusCode, "get", schema.GroupResource{Resource: "pods/portforward"}, "",
		strings.TrimSpace(string(body)), 0, true)
}

// portStream is a connection to the port.
type portStream struct {
	ws    *webSocket
	done  func() bool // of Dial: the context is not watched any more
	left  []byte
	begun [2]bool // the port's number was read, of each stream
	said  string  // by the kubelet: why it ends
}

func (s *portStream) Read(p []byte) (int, error) {
	for len(s.left) == 0 {
		message, err := s.ws.next()
		if err != nil {
			return 0, err
		}
		if len(message) == 0 || message[0] > errorStream {
			continue
		}
		stream, data := message[0], message[1:]
		switch {
		case !s.begun[stream]:
			s.begun[stream] = true // the number
		case stream == errorStream:
			s.said += string(data)
		default:
			s.left = data
		}
	}
	n := copy(p, s.left)
	s.left = s.left[n:]
	return n, nil
}

// Write sends to the port.
func (s *portStream) Write(p []byte) (int, error) {
	const most = 32 << 10 // of one message
	sent := 0
	for sent < len(p) {
		part := p[sent:min(len(p), sent+most)]
		if _, err := s.ws.Write(append([]byte{dataStream}, part...)); err != nil {
			return sent, err
		}
		sent += len(part)
	}
	return sent, nil
}

// Close ends the connection.
func (s *portStream) Close() error {
	s.done()
	return s.ws.Close()
}
