package host

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Applied keeps the record of bringing the view into the kernel.
type Applied struct {
	metrics *Metrics

	mu   sync.Mutex
	last Apply
}

// NewApplied has no run to tell of.
func NewApplied(metrics *Metrics) *Applied { return &Applied{metrics: metrics} }

// Run makes one run and enters how it went; first says that none succeeded before.
func (a *Applied) Run(ctx context.Context, apply func(context.Context) error) (first bool, err error) {
	begin := time.Now()
	err = apply(ctx)
	took := time.Since(begin)
	a.metrics.Applied(took, err)

	a.mu.Lock()
	defer a.mu.Unlock()
	a.last.At, a.last.Seconds, a.last.Error = begin, took.Seconds(), ""
	if err != nil {
		a.last.Errors++
		a.last.Error = err.Error()
		return false, err
	}
	first = !a.last.Done
	a.last.Done = true
	return first, nil
}

// Last is how the last run went.
func (a *Applied) Last() Apply {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

// Ready is an error until the view is in the kernel.
func (a *Applied) Ready() error {
	switch last := a.Last(); {
	case last.Error != "":
		return errors.New(last.Error)
	case !last.Done:
		return errors.New("no view has been applied yet: the source gave none")
	}
	return nil
}
