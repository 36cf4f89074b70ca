package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/election"
)

var (
	fast      = election.Profiles["fast"]
	heartbeat = fast.Heartbeat
	// tooLate is the lateness with which its lease ends before the next heartbeat.
	tooLate = (fast.Span() - heartbeat).Round(time.Millisecond)
)

// lateness is what the machine itself costs a program that is before all others.
type lateness struct {
	Wakes, TooLate int
	Most           time.Duration
}

// witness is a thread of the highest real-time priority that does nothing but wake up.
// It tells what it saw when it is asked.
func witness(d time.Duration) (tell func() (lateness, error), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the program itself: %w", err)
	}
	c := exec.Command(self, "witness", d.String())
	c.Stderr = os.Stderr
	c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := startKept(c); err != nil {
		return nil, fmt.Errorf("start a witness: %w", err)
	}
	return func() (seen lateness, err error) {
		if err := json.NewDecoder(out).Decode(&seen); err != nil {
			_ = c.Process.Kill()
			return seen, fmt.Errorf("hear the witness: %w, %w", err, c.Wait())
		}
		return seen, c.Wait()
	}, nil
}

func witnessCommand() *cobra.Command {
	return &cobra.Command{
		Use: "witness DURATION", Short: "Wake up in real time, and tell how late that was", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := time.ParseDuration(args[0])
			if err != nil {
				return fmt.Errorf("witness %s: %w", args[0], err)
			}
			runtime.LockOSThread()
			if err := unix.SchedSetAttr(0, foremost, 0); err != nil {
				return fmt.Errorf("real time for the witness: %w", err)
			}
			var seen lateness
			for began := time.Now(); time.Since(began) < d; seen.Wakes++ {
				asked := time.Now()
				pause := unix.NsecToTimespec(heartbeat.Nanoseconds())
				if err := unix.Nanosleep(&pause, nil); err != nil && !errors.Is(err, unix.EINTR) {
					return fmt.Errorf("sleep: %w", err)
				}
				late := time.Since(asked) - heartbeat
				seen.Most = max(seen.Most, late)
				if late > tooLate {
					seen.TooLate++
				}
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(seen)
		},
	}
}
