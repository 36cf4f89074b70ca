package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/gateway/host"
)

// status is what the program on node j says of itself.
func (w *world) status(role lab.Role, j int) (host.Status, error) {
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	var s host.Status
	code, body, err := w.Lab.Get(ctx, role, j, "/status")
	if err != nil {
		return s, err
	}
	if code != http.StatusOK {
		return s, fmt.Errorf("status of the %s on n%d: %d %s", role, j, code, body)
	}
	return s, json.Unmarshal(body, &s)
}
