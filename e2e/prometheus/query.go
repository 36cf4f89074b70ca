package prometheus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// Sample of a series. In JSON it is the time in Unix seconds and the value as a string.
type Sample struct {
	At    time.Time
	Value float64
}

// UnmarshalJSON reads it as Prometheus writes it.
func (s *Sample) UnmarshalJSON(text []byte) error {
	var at float64
	var value string
	if err := json.Unmarshal(text, &[]any{&at, &value}); err != nil {
		return err
	}
	s.At = time.UnixMilli(int64(at * 1000))
	var err error
	s.Value, err = strconv.ParseFloat(value, 64)
	return err
}

// Series is what an expression gives under one set of labels: one sample of an
// instant, or many of a range.
type Series struct {
	Labels map[string]string `json:"metric"`
	Value  Sample            `json:"value"`
	Values []Sample          `json:"values"`
}

// Alert that fires or is pending.
type Alert struct {
	Labels      map[string]string
	Annotations map[string]string
	State       string
}

// Rule is how a rule was judged the last time.
type Rule struct {
	Name, Health, LastError string
	LastEvaluation          time.Time
}

// Query asks for what an expression is now.
func (s *Server) Query(expr string) ([]Series, error) {
	return s.series("/api/v1/query", url.Values{"query": {expr}})
}

// Range asks for what an expression was, step by step.
func (s *Server) Range(expr string, from, to time.Time, step time.Duration) ([]Series, error) {
	seconds := func(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
	return s.series("/api/v1/query_range", url.Values{
		"query": {expr}, "start": {seconds(from)}, "end": {seconds(to)}, "step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)},
	})
}

// Metrics are the names of all series that it has.
func (s *Server) Metrics() (names []string, err error) {
	err = s.ask("/api/v1/label/__name__/values", nil, &names)
	return names, err
}

// Alerts that fire or are pending.
func (s *Server) Alerts() ([]Alert, error) {
	var a struct{ Alerts []Alert }
	err := s.ask("/api/v1/alerts", nil, &a)
	return a.Alerts, err
}

// Rules that it has.
func (s *Server) Rules() (all []Rule, err error) {
	var a struct{ Groups []struct{ Rules []Rule } }
	err = s.ask("/api/v1/rules", nil, &a)
	for _, g := range a.Groups {
		all = append(all, g.Rules...)
	}
	return all, err
}

func (s *Server) series(path string, q url.Values) ([]Series, error) {
	var a struct{ Result []Series }
	err := s.ask(path, q, &a)
	return a.Result, err
}

func (s *Server) ask(path string, q url.Values, data any) error {
	select {
	case <-s.ended:
		return fmt.Errorf("the Prometheus has ended: %s", s.noise.Bytes())
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, body, err := s.fetch(ctx, "http://"+address+path+"?"+q.Encode())
	if err != nil {
		return err
	}
	var a struct {
		Data  json.RawMessage
		Error string
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return fmt.Errorf("%s: %w: %.200s", path, err, body)
	}
	if a.Error != "" {
		return fmt.Errorf("%s %s: %w", path, q.Get("query"), errors.New(a.Error))
	}
	return json.Unmarshal(a.Data, data)
}
