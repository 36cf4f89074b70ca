package survey

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/doctor"
)

// A clock is off by what it cannot have been between question and answer; and who gives no
// answer is told of.
func TestDoctorTellsClocksApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// says that it is so late, somewhere on the way of an answer that takes 8 s
		clock := func(node string, early, ahead time.Duration) *patient {
			return &patient{program: "agent", where: node, get: func(context.Context) ([]byte, error) {
				time.Sleep(early)
				now := time.Now().Add(ahead)
				time.Sleep(8*time.Second - early)
				return json.Marshal(doctor.Host{Program: "agent", Node: node, Version: "v1", Live: true, Now: now})
			}}
		}
		mute := &patient{program: "gateway", where: "n9", get: func(context.Context) ([]byte, error) { return nil, errors.New("refused") }}
		r := examine(t.Context(), Config{Timeout: time.Minute, AtOnce: 16}, []*patient{
			clock("early", 0, 0), clock("late", 8*time.Second, 0), clock("fast", 4*time.Second, time.Hour), clock("slow", 4*time.Second, -time.Hour), mute,
		})
		found := map[string]string{}
		for _, f := range r.Findings {
			found[f.Where] = f.Check + ": " + f.Found
		}
		if len(found) != 2 || found["fast"] != "clock: is 1h0m0s off the clock of who asks" || found["slow"] != "clock: is -1h0m0s off the clock of who asks" {
			t.Errorf("found %q", found)
		}
		if r.Hosts != 4 || len(r.Silent) != 1 || r.Silent[0] != (doctor.Silent{Program: "gateway", Where: "n9", Why: "refused"}) {
			t.Errorf("%d answered, silent: %+v", r.Hosts, r.Silent)
		}
	})
}
