package lab

import (
	"encoding/json"
	"errors"
	"net/netip"
	"time"
)

// Exchange is one question of a client and what became of it.
type Exchange struct {
	Sent     time.Time
	Answered time.Time // zero: never
	// Source is what the partner saw the question come from.
	Source netip.AddrPort
	Err    error
}

// Latency of an exchange that was answered.
func (e Exchange) Latency() time.Duration { return e.Answered.Sub(e.Sent) }

// exchangeText is an exchange as it travels from a real pod: thousands at a time.
type exchangeText struct {
	Sent     time.Time      `json:"sent"`
	Answered time.Time      `json:"answered,omitzero"`
	Source   netip.AddrPort `json:"source,omitzero"`
	Err      string         `json:"error,omitempty"`
}

// MarshalJSON gives an error by its message.
func (e Exchange) MarshalJSON() ([]byte, error) {
	text := exchangeText{Sent: e.Sent, Answered: e.Answered, Source: e.Source}
	if e.Err != nil {
		text.Err = e.Err.Error()
	}
	return json.Marshal(text)
}

// UnmarshalJSON reads what MarshalJSON gives.
func (e *Exchange) UnmarshalJSON(b []byte) error {
	var text exchangeText
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	*e = Exchange{Sent: text.Sent, Answered: text.Answered, Source: text.Source}
	if text.Err != "" {
		e.Err = errors.New(text.Err)
	}
	return nil
}
