// Command bench measures what docs/benchmarks.md says, in labs of its own, and
// writes it there: how long a failover takes, whether a busy machine causes one,
// what the packet path costs, and how the programs bear many pods and routes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// bench is one run of the command.
type bench struct {
	binary, prefix, out string
	trials              int
	duration            time.Duration
	pods                int
	handovers           int
	only                []string // of the variants of a section, by name; empty: all
	command             string   // what to type to get the same
}

// section measures one part of the document.
type section struct {
	name, short string
	measure     func(*bench, context.Context) (string, error)
}

var sections = []section{
	{"failover", "how long until traffic flows again, beside keepalived", (*bench).failover},
	{"peers", "every fault, beside keepalived with conntrackd", (*bench).peers},
	{"fence", "how the kernel ends a holder that no longer renews", (*bench).fence},
	{"handover", "what it costs to move a VIP on purpose", (*bench).handover},
	{"quiet", "whether a busy machine causes a failover", (*bench).quiet},
	{"throughput", "what the packet path carries", (*bench).throughput},
	{"path", "what a packet costs on it", (*bench).path},
	{"flows", "replicated connections: lag, memory, catching up", (*bench).flows},
	{"crash", "a crash among 50,000 connections", (*bench).crash},
	{"audit", "what the record of connections costs a gateway", (*bench).audit},
	{"scale", "5,000 pods and 1,000 routes", (*bench).scale},
	{"kube", "20,000 pods and 500 nodes of a real API server, 100 of them changing a second", (*bench).kube},
}

func newCommand() *cobra.Command {
	b := &bench{}
	names := make([]string, len(sections))
	long := "Measures, and writes what it measured into its part of the document.\n\nSections, all when none is named:\n"
	for i, s := range sections {
		names[i] = s.name
		long += fmt.Sprintf("  %-11s %s\n", s.name, s.short)
	}
	c := &cobra.Command{
		Use: "bench [section...]", Short: "Measure what docs/benchmarks.md says", Long: long,
		ValidArgs: names, Args: cobra.OnlyValidArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			b.command = commandLine(cmd, args)
			if b.trials < 1 {
				return fmt.Errorf("--trials %d: give at least 1, and 15 for figures to publish", b.trials)
			}
			if b.handovers < 1 {
				return fmt.Errorf("--handovers %d: give at least 1, and 50 for figures to publish", b.handovers)
			}
			if b.pods < 1 || b.pods > 100_000 {
				return fmt.Errorf("--pods %d: give 1 to 100000, and 20000 for figures to publish", b.pods)
			}
			return b.run(cmd.Context(), args)
		},
	}
	f := c.Flags()
	f.IntVar(&b.trials, "trials", 15, "trials of each figure")
	f.DurationVar(&b.duration, "duration", 10*time.Minute, "of the section quiet")
	f.IntVar(&b.pods, "pods", 20_000, "of the section kube; fewer are for a look, not to be published")
	f.IntVar(&b.handovers, "handovers", 50, "of the section handover; of rolling restarts a tenth of it")
	f.StringSliceVar(&b.only, "only", nil, "measure only these variants of a section, to look closer; write with care")
	f.StringVar(&b.out, "out", "docs/benchmarks.md", "document to write to; - prints")
	f.StringVar(&b.binary, "binary", "bin/sallyport", "the sallyport program")
	f.StringVar(&b.prefix, "prefix", "spb", "first part of the names of all namespaces")
	c.AddCommand(spinCommand(), witnessCommand(), instrumentCommand())
	return c
}

// commandLine is what to type for the same measurement: places are of no
// consequence and left out.
func commandLine(cmd *cobra.Command, args []string) string {
	words := append([]string{"bin/bench"}, args...)
	for _, name := range []string{"trials", "duration", "pods", "handovers", "only"} {
		if f := cmd.Flags().Lookup(name); f.Changed {
			words = append(words, "--"+name, strings.Trim(f.Value.String(), "[]"))
		}
	}
	return strings.Join(words, " ")
}

// run measures section after section, and keeps what it has when one goes wrong.
func (b *bench) run(ctx context.Context, wanted []string) error {
	var errs []error
	for _, s := range sections {
		if len(wanted) > 0 && !slices.Contains(wanted, s.name) || ctx.Err() != nil {
			continue
		}
		progress("%s: %s", s.name, s.short)
		began := time.Now()
		body, err := s.measure(b, ctx)
		if err == nil {
			body = b.stamp(began) + "\n\n" + body
			err = b.write(s.name, body)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

func (b *bench) wants(variant string) bool {
	return len(b.only) == 0 || slices.Contains(b.only, variant)
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
