// Command demo shows a failover with real packets: three nodes, a partner, traffic,
// and what the traffic sees while the holder of the VIP is struck again and again.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

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
		fmt.Println("demo: FAILED:", oneLine(err))
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	var o lab.Options
	var keep bool
	c := &cobra.Command{
		Use: "demo", Short: "Show a failover with real packets", Args: cobra.NoArgs,
		Long: `Builds three nodes, their pods and a partner out of network namespaces, kills the
gateway that holds the VIP in four ways, and shows what pods and partner see of it.
Needs root; takes about half a minute; leaves nothing behind.`,
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lab.Equipped(); err != nil {
				return err
			}
			var err error
			if o.Binary, err = lab.FindBinary(o.Binary); err != nil {
				return err
			}
			if err := show(cmd.Context(), newScreen(os.Stdout), o, keep); err != nil {
				return err
			}
			fmt.Println("demo: ok")
			return nil
		},
	}
	f := c.Flags()
	f.BoolVar(&keep, "keep", false, "leave the lab running after the summary, until Ctrl-C")
	f.StringVar(&o.Binary, "binary", "", "the sallyport program (default the one beside this)")
	f.StringVar(&o.Prefix, "prefix", "spd", "first part of the names of all its namespaces")
	f.StringVar(&o.Netfilter, "netfilter", "", "handed to the programs: auto, nftables or iptables")
	return c
}

// show plays the whole piece in a lab of its own.
func show(ctx context.Context, s *screen, o lab.Options, keep bool) (err error) {
	s.print(introduction)
	s.step("building the network")
	l, err := lab.Up(o)
	if err != nil {
		return err
	}
	defer func() {
		s.step("removing the lab")
		err = errors.Join(err, l.Close())
	}()
	d := &demo{Lab: l, screen: s, vip: l.Options.VIPs[0]}
	if err := d.prepare(ctx); err != nil {
		return d.withLogs(ctx, err)
	}
	for _, f := range d.faults() {
		if err := d.strike(ctx, f); err != nil {
			return d.withLogs(ctx, err)
		}
	}
	verdict := d.summary()
	if keep && ctx.Err() == nil {
		s.print("\nThe lab stays up until Ctrl-C. In another terminal, as root:\n\n" + l.Suggest(true) + "\n")
		<-ctx.Done()
		s.print("\n")
	}
	return verdict
}

// withLogs shows the end of the programs' logs with an error that they may explain.
func (d *demo) withLogs(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		d.screen.print("\n" + d.LogTails(8) + "\n")
	}
	return err
}
