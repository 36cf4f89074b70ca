package host

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"github.com/sallyport/sallyport/gateway"
)

// guard is who may see what names pods, nodes and problems: who is on this host, and from
// elsewhere who has the token. Its value is the file that has the token; "": there is none.
type guard string

// shortest token, of which nobody finds out by trying.
const shortest = 16

// token is read at each request from elsewhere, so that another one counts at once.
func (g guard) token() (string, error) {
	text, err := os.ReadFile(string(g))
	if err != nil {
		return "", fmt.Errorf("--http-token-file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if len(token) < shortest || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("--http-token-file %s: give one line of at least %d characters without spaces: head -c 24 /dev/urandom | base64", g, shortest)
	}
	return token, nil
}

// check is an error where there is a file without a token.
func (g guard) check() error {
	if g == "" {
		return nil
	}
	_, err := g.token()
	return err
}

// TokenProblems say that the file with the token, "" for none, has one no more.
func TokenProblems(file string) []gateway.Problem {
	err := guard(file).check()
	if err == nil {
		return nil
	}
	return []gateway.Problem{{
		Object: "HTTP endpoint", Reason: gateway.Unreadable,
		Message: err.Error() + ": put it back; until then nobody from elsewhere is admitted to what names pods",
	}}
}

// errors of who is kept out, with their HTTP statuses.
var (
	errNoToken = errors.New("the page is for the gateway's own host: open it there, by kubectl sallyport dashboard, or start the gateway with --http-token-file and give the token")
	errUnread  = errors.New("the gateway cannot read the token of --http-token-file, as its status says on its own host: until it can, nobody from elsewhere is admitted")
	errToken   = errors.New("give the token of --http-token-file: Authorization: Bearer TOKEN")
	errName    = errors.New("ask for this host by an address or as localhost, or give the token of --http-token-file: under another name it may be a page of somebody else's that asks")
	errSite    = errors.New("a page of another site may not ask for this")
)

// admits is an error for who may not see it. Where there is no token, open says whether
// those from elsewhere may all the same.
func (g guard) admits(r *http.Request, open bool) error {
	if here(r) {
		switch {
		// A browser on this host shows other sites, too, whose scripts must not read this by a name
		// of theirs that resolves to loopback.
		case !byAddress(r.Host) && g.bears(r) != nil:
			return errName
		case r.Header.Get("Sec-Fetch-Site") == "cross-site":
			return errSite
		}
		return nil
	}
	if g == "" {
		if open {
			return nil
		}
		return errNoToken
	}
	return g.bears(r)
}

// bears is an error unless the request has the token.
func (g guard) bears(r *http.Request) error {
	if g == "" {
		return errToken
	}
	want, err := g.token()
	if err != nil {
		return errUnread // a stranger has no need of the path
	}
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want)) // of one length, which tells nothing of the token's
	if !ok || subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
		return errToken
	}
	return nil
}

// here tells whether a request was made on this host and for nobody else: what a proxy on
// this host passes on comes from elsewhere.
func here(r *http.Request) bool {
	return local(r) && r.Header.Get("X-Forwarded-For") == "" && r.Header.Get("Forwarded") == "" && r.Header.Get("Via") == ""
}

func byAddress(hostPort string) bool {
	name, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		name = hostPort
	}
	_, err = netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil || name == "localhost"
}

// data is for who may see it.
func (g guard) data(open bool, next http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch err := g.admits(r, open); {
		case err == nil:
			next.ServeHTTP(w, r)
		case errors.Is(err, errToken):
			w.Header().Set("WWW-Authenticate", `Bearer realm="sallyport"`)
			http.Error(w, err.Error(), http.StatusUnauthorized)
		default:
			http.Error(w, err.Error(), http.StatusForbidden)
		}
	}
}

// document tells nothing by itself, and asks for the token where one is needed.
func (g guard) document(next http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !here(r) && g == "" {
			http.Error(w, errNoToken.Error(), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	}
}
