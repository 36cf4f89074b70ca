// Command chaos breaks a lab at random and watches that what Sallyport promises holds.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/chaos"
	"github.com/sallyport/sallyport/e2e/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process; the lab's guard then removes the lab
	err := newCommand().ExecuteContext(ctx)
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Println("chaos: FAILED:", err)
		os.Exit(1)
	}
	fmt.Println("chaos: ok")
}

// longest that a fault lasts, for each timing: a few leases are in it, and not so much
// that a TCP connection waits for minutes to try again.
var longest = map[string]time.Duration{"default": 3 * time.Second, "fast": 2 * time.Second, "wan": 12 * time.Second}

func newCommand() *cobra.Command {
	o := chaos.Options{Out: os.Stdout}
	var plan bool
	c := &cobra.Command{
		Use: "chaos", Short: "Break a lab at random and watch what holds", Args: cobra.NoArgs,
		Long: `Builds three nodes, their pods and a partner out of network namespaces and lets one fault
follow another at random, sometimes several at once, under constant traffic. Seen from
outside, all the time: never two nodes answer for a VIP; no packet arrives with a wrong
source; traffic is back soon while a quorum is whole, and all of it when faults have ended;
no established connection is lost by a single fault. The seed decides what happens.
Needs root; leaves nothing behind but its report of a violation.`,
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Longest = longest[o.Timing]; o.Longest == 0 {
				return fmt.Errorf("--timing %q: give default, fast or wan", o.Timing)
			}
			if plan {
				for s := range o.Steps() {
					if s.Number > 50 {
						break
					}
					fmt.Println(s)
				}
				return nil
			}
			if err := lab.Equipped(); err != nil {
				return err
			}
			var err error
			if o.Lab.Binary, err = lab.FindBinary(o.Lab.Binary); err != nil {
				return err
			}
			return chaos.Run(cmd.Context(), o)
		},
	}
	f := c.Flags()
	f.Uint64Var(&o.Seed, "seed", uint64(rand.Uint32()), "what decides on everything; a random one by default")
	f.DurationVar(&o.Duration, "duration", 5*time.Minute, "how long; the last step is finished")
	f.IntVar(&o.First, "first", 1, "number of the first step, to come sooner to a later one")
	f.BoolVar(&plan, "plan", false, "print the first 50 steps of the seed and do nothing")
	f.StringVar(&o.Timing, "timing", "default", "of the gateways: fast, default or wan")
	f.StringVar(&o.Reports, "reports", os.TempDir(), "folder for the report of a violation")
	f.StringVar(&o.Lab.Binary, "binary", "", "the sallyport program (default the one beside this)")
	f.StringVar(&o.Lab.Prefix, "prefix", "spc", "first part of the names of all its namespaces")
	f.StringVar(&o.Lab.Netfilter, "netfilter", "", "handed to the programs: auto, nftables or iptables")
	return c
}
