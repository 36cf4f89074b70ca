package host

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const secret = "correct-horse-battery-staple"

func tokenFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestWhoSeesWhat(t *testing.T) {
	with := tokenFile(t, secret+"\n")
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for _, test := range []struct {
		name   string
		file   string
		from   string
		host   string
		header [2]string
		// page, its events, and the status
		want [3]int
	}{
		{"this host", "", "127.0.0.1:5", "127.0.0.1:9871", [2]string{}, [3]int{200, 200, 200}},
		{"this host by name", with, "127.0.0.1:5", "localhost:40000", [2]string{}, [3]int{200, 200, 200}},
		{"this host by its own address", with, "192.0.2.1:5", "192.0.2.1:9871", [2]string{}, [3]int{200, 200, 200}},
		{"a name of somebody else's that leads here", "", "127.0.0.1:5", "evil.example:9871", [2]string{}, [3]int{200, 403, 403}},
		{"a name, with the token", with, "127.0.0.1:5", "gw.example", [2]string{"Authorization", "Bearer " + secret}, [3]int{200, 200, 200}},
		{"a script of another site", "", "127.0.0.1:5", "127.0.0.1:9871", [2]string{"Sec-Fetch-Site", "cross-site"}, [3]int{200, 403, 403}},
		{"elsewhere, no token is set", "", "198.51.100.7:5", "192.0.2.1:9871", [2]string{}, [3]int{403, 403, 200}},
		{"elsewhere, none is given", with, "198.51.100.7:5", "192.0.2.1:9871", [2]string{}, [3]int{200, 401, 401}},
		{"elsewhere, another", with, "198.51.100.7:5", "192.0.2.1:9871", [2]string{"Authorization", "Bearer " + secret + "x"}, [3]int{200, 401, 401}},
		{"elsewhere, without its kind", with, "198.51.100.7:5", "192.0.2.1:9871", [2]string{"Authorization", secret}, [3]int{200, 401, 401}},
		{"elsewhere, with it", with, "198.51.100.7:5", "192.0.2.1:9871", [2]string{"Authorization", "Bearer " + secret}, [3]int{200, 200, 200}},
		{"by a proxy on this host", with, "127.0.0.1:5", "127.0.0.1:9871", [2]string{"X-Forwarded-For", "198.51.100.7"}, [3]int{200, 401, 401}},
		{"by a proxy that names itself only", with, "127.0.0.1:5", "127.0.0.1:9871", [2]string{"Via", "1.1 proxy"}, [3]int{200, 401, 401}},
		{"by a proxy, no token is set", "", "127.0.0.1:5", "127.0.0.1:9871", [2]string{"Forwarded", "for=198.51.100.7"}, [3]int{403, 403, 200}},
		{"the token's file went", "/nowhere/token", "198.51.100.7:5", "192.0.2.1:9871", [2]string{"Authorization", "Bearer "}, [3]int{200, 403, 403}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := guard(test.file)
			for i, h := range []http.Handler{g.document(ok), g.data(false, ok), g.data(true, ok)} {
				r := httptest.NewRequest(http.MethodGet, "/", nil)
				r.RemoteAddr, r.Host = test.from, test.host
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 9871})))
				if test.header[0] != "" {
					r.Header.Set(test.header[0], test.header[1])
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != test.want[i] {
					t.Errorf("handler %d answers %d %s, want %d", i, w.Code, w.Body, test.want[i])
				}
				if w.Code/100 == 4 && test.header[0] != "Sec-Fetch-Site" && !strings.Contains(w.Body.String(), "--http-token-file") {
					t.Errorf("%q does not name the flag", w.Body)
				}
				if asks := w.Header().Get("WWW-Authenticate") != ""; asks != (w.Code == http.StatusUnauthorized) {
					t.Errorf("answer %d asks for a token: %v", w.Code, asks)
				}
				if strings.Contains(w.Body.String(), "/nowhere/token") {
					t.Errorf("%q tells a stranger the path", w.Body)
				}
			}
		})
	}
}

func TestAnotherTokenCountsAtOnce(t *testing.T) {
	file := tokenFile(t, secret)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer another-secret-of-length")
	if err := guard(file).bears(r); err == nil {
		t.Fatal("any token will do")
	}
	if err := os.WriteFile(file, []byte("another-secret-of-length"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := guard(file).bears(r); err != nil {
		t.Error(err)
	}
}

func TestATokenThatIsNoneIsRefusedAtTheStart(t *testing.T) {
	for _, text := range []string{"", "short", "two words of enough length", "line of enough length\nand another"} {
		if err := guard(tokenFile(t, text)).check(); err == nil || !strings.Contains(err.Error(), "--http-token-file") || !strings.Contains(err.Error(), "head -c") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := guard("").check(); err != nil {
		t.Error(err)
	}
}
