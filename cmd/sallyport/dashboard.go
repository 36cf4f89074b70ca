package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/gateway/survey"
)

func dashboardCommand() *cobra.Command {
	var access clusterAccess
	var addr, gateway string
	var port uint16
	var open bool
	cmd := &cobra.Command{
		Use:   "dashboard",
		Short: "Open the way to a gateway's status page, and print its URL",
		Long: `Forwards a port of this host's loopback to the status page of one gateway, by way of the
API server, until Ctrl-C. When that gateway goes, the page is served by another one. It
takes the rights to list Sallyport's pods and to get and create pods/portforward.

On a gateway's host, with --http, it only looks whether the page is there and prints its URL.

The page shows what that one gateway sees; --gateway chooses which.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("http") && !access.asked(cmd.Flags()) {
				for _, flag := range []string{"gateway", "port"} {
					if cmd.Flags().Changed(flag) {
						return fmt.Errorf("--%s: not with --http alone, whose page is this host's: leave one of the two out", flag)
					}
				}
				url, err := localPage(cmd.Context(), addr)
				if err != nil {
					return err
				}
				show(cmd, url, open)
				return nil
			}
			client, forwarder, err := access.connect("dashboard")
			if err != nil {
				return err
			}
			d := &survey.Dashboard{Config: access.survey, Cluster: client, Dialer: forwarder, Gateway: gateway, Moved: func(m survey.Member) {
				fmt.Fprintf(cmd.ErrOrStderr(), "gateway %s/%s on %s\n", m.Namespace, m.Pod, m.Node)
			}}
			if _, err := d.Pick(cmd.Context()); err != nil {
				return err
			}
			listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
			if err != nil {
				return fmt.Errorf("--port %d: %w: give another one, or 0 for any that is free", port, err)
			}
			show(cmd, "http://"+listener.Addr().String()+"/", open)
			return d.Serve(cmd.Context(), listener)
		},
	}
	f := cmd.Flags()
	access.register(f)
	f.StringVar(&gateway, "gateway", "", "pod or node of the gateway whose page is wanted; default: any that is ready")
	f.Uint16Var(&port, "port", 0, "port of this host's loopback; 0: any that is free")
	f.StringVar(&addr, "http", "127.0.0.1:9871", "address of the HTTP endpoint of a gateway on this host, to be used without a cluster")
	f.BoolVar(&open, "open", false, "show the page in a browser, by xdg-open")
	return cmd
}

// localPage is the URL of the page at an address, where there is one.
func localPage(ctx context.Context, addr string) (string, error) {
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
		return "", fmt.Errorf("--http %s: give ADDRESS:PORT, such as 127.0.0.1:9871", addr)
	}
	url := "http://" + addr + "/"
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("--http %s: %w", addr, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("look for the page at --http %s: %w (is a gateway running there?)", addr, err)
	}
	defer resp.Body.Close()
	switch text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20)); {
	case err != nil:
		return "", fmt.Errorf("read the page at %s: %w", addr, err)
	case resp.StatusCode == http.StatusForbidden:
		return "", fmt.Errorf("%s: %s", addr, strings.TrimSpace(string(text)))
	case resp.StatusCode != http.StatusOK || !strings.Contains(string(text), "<title>Sallyport</title>"):
		return "", fmt.Errorf("%s has no status page: %s (an agent has none; a gateway's is at 127.0.0.1:9871)", addr, resp.Status)
	}
	return url, nil
}

// show prints the URL, and opens it where that is wanted and possible.
func show(cmd *cobra.Command, url string, open bool) {
	fmt.Fprintln(cmd.OutOrStdout(), url)
	if !open {
		return
	}
	if err := exec.CommandContext(cmd.Context(), "xdg-open", url).Run(); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "--open: %v: open the URL by hand\n", err)
	}
}
