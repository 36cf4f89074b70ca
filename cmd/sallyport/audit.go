package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/audit"
	"github.com/sallyport/sallyport/audit/journal"
)

// auditAnswer is what is printed.
type auditAnswer struct {
	audit.Answer
	Looked []journal.Looked
}

func auditCommand() *cobra.Command {
	var at, vip, protocol, output string
	q := audit.Question{}
	cmd := &cobra.Command{
		Use:   "audit --at TIME --port PORT [LOG...]",
		Short: "Tell which pod had a port of a VIP at a time",
		Long: `Looks through the audit logs of gateways, the full files beside each included, for the
connections of routes that say audit: true. Each gateway writes what passed it while it held the VIP:
copy the logs of all of them together, or ask each. It says which files it has looked at, what of
their time they have, and who held the VIP then.

A connection that is still open is found only where gateways run with --audit-start.

Exit status 1 when nobody is found.`,
		Example: `  sallyport audit --at 2026-11-21T14:03:07Z --port 43211
  kubectl -n sallyport exec sallyport-gateway-0 -- sallyport audit --at 14:03:07 --port 43211 --vip 192.0.2.10 --protocol tcp`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var errs []error
			var err error
			if q.At, err = parseMoment(at, time.Now()); err != nil {
				errs = append(errs, err)
			}
			if q.Port == 0 {
				errs = append(errs, errors.New("--port is missing: give the source port that the partner saw; of ICMP, the id of the echo"))
			}
			if vip != "" {
				if q.VIP, err = netip.ParseAddr(vip); err != nil {
					errs = append(errs, fmt.Errorf("--vip %s: give an address such as 192.0.2.10", vip))
				}
			}
			if protocol != "" {
				number, ok := audit.Protocol(protocol)
				if !ok {
					errs = append(errs, fmt.Errorf("--protocol %s: choose tcp, udp, sctp or icmp", protocol))
				}
				q.Protocol = audit.ProtocolName(number)
			}
			if q.Within < 0 {
				errs = append(errs, fmt.Errorf("--within %v: give zero or more", q.Within))
			}
			if output != "text" && output != "json" {
				errs = append(errs, fmt.Errorf("--output %s: choose text or json", output))
			}
			if err := errors.Join(errs...); err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{defaultAuditLog}
			}
			return searchAudit(cmd.OutOrStdout(), q, args, output)
		},
	}
	f := cmd.Flags()
	f.StringVar(&at, "at", "", "when: 2026-11-21T14:03:07Z, or today's 14:03:07 in UTC")
	f.Uint16Var(&q.Port, "port", 0, "source port that the partner saw; of ICMP, the id of the echo")
	f.StringVar(&vip, "vip", "", "source address that the partner saw; default: any VIP")
	f.StringVar(&protocol, "protocol", "", "tcp, udp, sctp or icmp; default: any")
	f.DurationVar(&q.Within, "within", time.Second, "how far the partner's clock may be off")
	f.StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

// parseMoment reads a time, of today where it has no date.
func parseMoment(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", time.DateTime} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	if t, err := time.Parse(time.TimeOnly, text); err == nil {
		return now.UTC().Truncate(24 * time.Hour).Add(t.Sub(t.Truncate(24 * time.Hour))), nil
	}
	if text == "" {
		return time.Time{}, errors.New("--at is missing: give a time such as 2026-11-21T14:03:07Z")
	}
	return time.Time{}, fmt.Errorf("--at %s: give a time such as 2026-11-21T14:03:07Z, or 14:03:07 of today, in UTC", text)
}

func searchAudit(w io.Writer, q audit.Question, logs []string, output string) error {
	search, looked := audit.NewSearch(q), []journal.Looked{}
	var errs []error
	for _, log := range logs {
		files, err := journal.Look(search, log)
		looked, errs = append(looked, files...), append(errs, err)
	}
	unread := errors.Join(errs...)
	if unread != nil && len(looked) == 0 {
		return unread
	}
	a := auditAnswer{search.Answer(), looked}
	show := printAudit
	if output == "json" {
		show = printAuditJSON
	}
	if err := show(w, q, a); err != nil {
		return err
	}
	if unread == nil && len(a.Found) == 0 {
		return errSilent
	}
	return unread
}

func printAuditJSON(w io.Writer, _ audit.Question, a auditAnswer) error {
	raw := func(records []audit.Record) []json.RawMessage {
		out := make([]json.RawMessage, len(records))
		for i := range records {
			out[i] = records[i].Append(nil)
		}
		return out
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		Found   []json.RawMessage `json:"found"`
		Holders []json.RawMessage `json:"holders"`
		Lost    []json.RawMessage `json:"lost"`
		Looked  []journal.Looked  `json:"looked"`
	}{raw(a.Found), raw(a.Holders), raw(a.Lost), a.Looked})
}

func printAudit(w io.Writer, q audit.Question, a auditAnswer) error {
	moment := func(t time.Time, zero string) string {
		if t.IsZero() {
			return zero
		}
		return t.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(a.Found) > 0 {
		fmt.Fprintln(t, "POD\tADDRESS\tNODE\tVIP\tDESTINATION\tPROTOCOL\tFROM\tTO\tREASON\tROUTE\tGATEWAY")
	}
	for _, r := range a.Found {
		pod := "unknown"
		if r.Pod.Name != "" {
			pod = r.Pod.Namespace + "/" + r.Pod.Name
		}
		from, to := moment(r.Start, "before the gateway knew"), moment(r.Time, "")
		if r.Event == audit.StartEvent {
			to = "open, or its end is on record elsewhere"
		}
		destination := r.Destination.String()
		if r.DestinationPort != 0 {
			destination = netip.AddrPortFrom(r.Destination, r.DestinationPort).String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", pod, netip.AddrPortFrom(r.Source, r.SourcePort), cmp.Or(r.Pod.Node, "-"),
			netip.AddrPortFrom(r.VIP, r.Port), destination, r.Protocol, from, to, cmp.Or(string(r.Reason), "-"), cmp.Or(r.Route, "-"), r.Gateway)
	}
	if len(a.Found) == 0 {
		fmt.Fprintf(t, "Nobody is on record with port %d at %s.\n", q.Port, moment(q.At, ""))
	}
	fmt.Fprintln(t, "\nLOOKED AT\tGATEWAY\tFROM\tTO\tLINES\tDAMAGED")
	for _, l := range a.Looked {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\n", l.File, cmp.Or(l.Gateway, "-"), moment(l.From, "-"), moment(l.To, "-"), l.Lines, l.Damaged)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, h := range a.Holders {
		elsewhere := ""
		if h.Holder != h.Gateway {
			elsewhere = ": what passed then is on record there"
		}
		fmt.Fprintf(w, "%s was held by %s then, says %s%s.\n", h.VIP, h.Holder, h.Gateway, elsewhere)
	}
	if len(a.Holders) == 0 {
		fmt.Fprintln(w, "Who held the VIP then is on none of these records: ask the other gateways, too.")
	}
	for _, l := range a.Lost {
		number := "an unknown number of"
		if l.Lost != nil {
			number = fmt.Sprint(*l.Lost)
		}
		fmt.Fprintf(w, "%s lost %s records by %s: %s.\n", l.Gateway, number, moment(l.Time, ""), l.Cause)
	}
	return nil
}
