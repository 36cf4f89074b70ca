package conntrack_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/flows/conntrack"
)

// flush has two ask at a time, as the replication and the audit do, and gives what ends
// both.
func flush(t *testing.T, l *conntrack.Listener) (both func() error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	done := make(chan error, 2)
	for range cap(done) {
		go func() { done <- l.Flush(ctx) }()
	}
	return func() error { return errors.Join(<-done, <-done) }
}

// Whoever hands a VIP over tells the heir of all connections first: what happened before a
// Flush has been handed on when it returns. It does not wait for something to happen.
func TestFlushReturnsWhenAllIsHandedOn(t *testing.T) {
	track(t)
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	began, done, handing, gate := 0, make(chan error, 1), make(chan struct{}), make(chan struct{})
	go func() {
		done <- l.Run(ctx, func(batch []conntrack.Event) {
			if began == 0 {
				close(handing)
				<-gate
			}
			for _, e := range batch {
				if e.Kind == conntrack.New {
					began++
				}
			}
		})
	}()
	send(t, 9002)
	<-handing
	// It has read all that there was, and hands it on, when more happens and is asked for.
	const flows = 600 // several batches
	for range flows - 1 {
		send(t, 9002)
	}
	flushed := flush(t, l)
	if err := lab.Await(patience, func() error {
		if n := l.Asking(); n != 2 {
			return fmt.Errorf("%d ask", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	close(gate)
	if err := flushed(); err != nil {
		t.Fatal(err)
	}
	if began != flows { // nobody writes it any more
		t.Errorf("%d of %d flows are handed on", began, flows)
	}

	if err := flush(t, l)(); err != nil {
		t.Errorf("nothing has happened since: %v", err)
	}
	if err := lab.Await(patience, func() error { // or it would never rest again
		if l.Awake() {
			return errors.New("it is awake")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFlushEndsWithItsContext(t *testing.T) {
	track(t)
	l := listen(t) // and nobody runs it
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 200) // more than there is room for
	for range cap(asked) {
		go func() { asked <- l.Flush(ctx) }()
	}
	cancel()
	late, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	for range cap(asked) {
		select {
		case err := <-asked:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("flush: %v, want %v", err, context.Canceled)
			}
		case <-late.Done():
			t.Fatal("somebody still waits")
		}
	}
}
