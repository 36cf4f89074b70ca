package host

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/netfilter/nft"
)

func serveDoctor(p Program) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(p.Doctor(r.Context())) // the client went away
	}
}

// Examined is what the host of a program with this status shows. Clashes are looked for
// anew, and the kernel is asked anew for what the rules are made of.
func Examined(ctx context.Context, clash *Clashes, filter *Filter, status func(context.Context) Status) doctor.Host {
	clash.look(ctx)
	s := status(ctx)
	out := doctor.Host{
		Program: s.Program, Name: s.Name, Node: s.Node, Version: s.Version, Netfilter: s.Netfilter, Priority: s.Priority,
		Live: s.Live, Viewless: !s.Live && s.ViewAgeSeconds == nil, Apply: s.Apply.Error, Problems: s.Problems, Kernel: kernel(), Now: time.Now(),
	}
	out.Kernel.Missing = filter.Missing(ctx)
	for _, v := range s.VIPs {
		d := doctor.VIP{
			Addr: v.VIP, Interface: v.Interface, Holder: v.Holder, Held: v.Held, Voters: len(v.Voters), Replicas: v.Replicas,
			Barred: v.Barred, Replicated: v.Replication != nil,
		}
		if v.Replication != nil {
			for _, b := range v.Replication.Standbys {
				d.Standbys = append(d.Standbys, doctor.Standby{Name: b.Name, InStep: b.InStep, Lag: time.Duration(b.LagSeconds * float64(time.Second))})
			}
		}
		out.VIPs = append(out.VIPs, d)
	}
	return out
}

const conf = "/proc/sys/net/ipv4/conf"

// kernel reads what needs no right. What cannot be read is left out.
func kernel() doctor.Kernel {
	k := doctor.Kernel{ARPIgnore: map[string]int{}}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		k.Release = unix.ByteSliceToString(name.Release[:])
	}
	const tracking = "/proc/sys/net/netfilter/nf_conntrack_"
	k.Connections, _ = number(tracking + "count")
	k.Room, _ = number(tracking + "max")
	counted, err := number(tracking + "acct")
	k.Uncounted = err == nil && counted == 0
	told, err := number(tracking + "events")
	k.Unheard = err == nil && told == 0
	all, _ := number(filepath.Join(conf, "all/arp_ignore"))
	links, _ := net.Interfaces()
	for _, l := range links {
		if own, err := number(filepath.Join(conf, l.Name, "arp_ignore")); err == nil {
			k.ARPIgnore[l.Name] = max(all, own) // as IN_DEV_MAXCONF of the kernel has it
		}
		if l.Name != "kube-ipvs0" {
			continue
		}
		addrs, _ := l.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				k.Bound = append(k.Bound, p.Addr())
			}
		}
	}
	slices.SortFunc(k.Bound, netip.Addr.Compare)
	k.Earlier, _ = nft.Earlier()
	return k
}

func number(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
