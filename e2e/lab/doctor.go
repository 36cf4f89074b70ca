package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"

	"github.com/sallyport/sallyport/doctor"
)

// Diagnosis is the report that `doctor -o json` printed, which ended with err. Its exit status
// must be as the report says.
func Diagnosis(said []byte, err error) (r doctor.Report, _ error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return r, err
	}
	if parsed := json.Unmarshal(said, &r); parsed != nil {
		return r, fmt.Errorf("doctor printed %q: %w", said, errors.Join(err, parsed))
	}
	status, want := 0, 0
	if exit != nil {
		status = exit.ExitCode()
	}
	switch {
	case r.Errors():
		want = 1
	case len(r.Silent) > 0:
		want = 2
	}
	if status != want {
		return r, fmt.Errorf("doctor ended with status %d, want %d for %+v: %v", status, want, r, err)
	}
	return r, nil
}
