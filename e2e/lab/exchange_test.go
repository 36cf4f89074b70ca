package lab

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"
	"time"
)

func TestAnExchangeTravels(t *testing.T) {
	at := time.Unix(1, 2)
	for _, want := range []Exchange{
		{Sent: at},
		{Sent: at, Answered: at.Add(time.Nanosecond), Source: netip.MustParseAddrPort("192.0.2.10:4711")},
		{Sent: at, Err: errors.New("refused")},
	} {
		text, err := json.Marshal(Timeline{Exchanges: []Exchange{want}})
		if err != nil {
			t.Fatal(err)
		}
		var got Timeline
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		e := got.Exchanges[0]
		if !e.Sent.Equal(want.Sent) || !e.Answered.Equal(want.Answered) || e.Source != want.Source || (e.Err == nil) != (want.Err == nil) {
			t.Errorf("%s: %+v, want %+v", text, e, want)
		}
		if e.Err != nil && e.Err.Error() != want.Err.Error() {
			t.Errorf("%s: %v", text, e.Err)
		}
	}
}
