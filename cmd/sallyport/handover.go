package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/gateway/host"
)

func handoverCommand() *cobra.Command {
	var vip, to, addr string
	cmd := &cobra.Command{
		Use:   "handover",
		Short: "Give a VIP to another gateway, without losing packets or connections",
		Long: `Run it on the VIP's holder, as status names it. It waits until another gateway has
all connections, hands the VIP over, and prints who holds it now and for how long packets
waited. Exit status 1 with the cause when the VIP stays.

The gateway takes it from its own host only. In Kubernetes:
  kubectl exec -n sallyport sallyport-gateway-0 -- sallyport handover --vip 192.0.2.10`,
		Example: `  sallyport handover --vip 192.0.2.10 --to n2`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := netip.ParseAddr(vip)
			if err != nil {
				return fmt.Errorf("--vip %q: give the address to hand over, such as 192.0.2.10", vip)
			}
			done, err := askHandover(cmd, addr, a, to)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: from %s to %s, packets waited %.1f ms\n", done.VIP, done.From, done.To, done.Milliseconds)
			return err
		},
	}
	cmd.Flags().StringVar(&vip, "vip", "", "address to hand over")
	cmd.Flags().StringVar(&to, "to", "", "name of the gateway, or of its node, that is to hold it; default: one that is fit")
	cmd.Flags().StringVar(&addr, "http", "127.0.0.1:9871", "address of the gateway's HTTP endpoint")
	return cmd
}

func askHandover(cmd *cobra.Command, addr string, vip netip.Addr, to string) (done host.Handover, err error) {
	where := "http://" + addr + "/handover?" + url.Values{"vip": {vip.String()}, "to": {to}}.Encode()
	req, err := http.NewRequestWithContext(cmd.Context(), http.MethodPost, where, nil)
	if err != nil {
		return done, fmt.Errorf("--http %s: %w", addr, err)
	}
	req.Header.Set(host.HandoverHeader, "1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return done, fmt.Errorf("ask %s to hand %s over: %w (is the gateway running there?)", addr, vip, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	switch {
	case err != nil:
		return done, fmt.Errorf("read the answer of %s: %w", addr, err)
	case resp.StatusCode == http.StatusNotFound:
		return done, fmt.Errorf("%s is no gateway that can hand over: an agent, or an earlier version", addr)
	case resp.StatusCode != http.StatusOK:
		return done, errors.New(strings.TrimSpace(string(body)))
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&done); err != nil {
		return done, fmt.Errorf("%s does not answer as Sallyport does: %.80q", addr, body)
	}
	return done, nil
}
