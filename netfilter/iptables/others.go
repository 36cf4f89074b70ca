package iptables

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/netfilter"
)

// LegacyOthers says what the rules of others in iptables-legacy write into marks and
// zones. Those of iptables-nft are seen by the nft package.
func LegacyOthers(ctx context.Context) ([]netfilter.Writes, error) {
	// The kernel names the tables that were ever used; asking for another would load it.
	if names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names"); err != nil || len(names) == 0 {
		return nil, nil
	}
	program := Legacy.tool(false, "-save")
	if _, err := exec.LookPath(program); err != nil {
		return nil, fmt.Errorf("this host has rules of iptables-legacy, which cannot be read without the program %s: install it", program)
	}
	save, err := run(ctx, "", program)
	if err != nil {
		return nil, fmt.Errorf("read the rules of iptables-legacy: %w", err)
	}
	return writesOf(string(save)), nil
}

// writesOf reads what iptables-save printed.
func writesOf(save string) []netfilter.Writes {
	var list []netfilter.Writes
	index := map[string]int{}
	var table string
	for line := range strings.Lines(save) {
		f := strings.Fields(line)
		if len(f) == 1 && strings.HasPrefix(f[0], "*") {
			table = f[0][1:]
		}
		if len(f) < 4 || f[0] != "-A" || strings.HasPrefix(f[1], chainPrefix) {
			continue
		}
		mark, zone := writtenBy(f[2:])
		if mark == 0 && zone == 0 {
			continue
		}
		where := "iptables-legacy table " + table + ", chain " + f[1]
		i, known := index[where]
		if !known {
			i = len(list)
			index[where], list = i, append(list, netfilter.Writes{Where: where})
		}
		list[i].Mark |= mark
		if zone != 0 {
			list[i].Zones = append(list[i].Zones, zone)
		}
	}
	return list
}

// writtenBy reads the options behind a rule's target.
func writtenBy(rule []string) (mark uint32, zone uint16) {
	var target string
	for i := 0; i+1 < len(rule); i++ {
		value := rule[i+1]
		switch rule[i] {
		case "-j":
			target = value
		case "--set-xmark", "--tproxy-mark": // value/mask
			v, m, masked := strings.Cut(value, "/")
			mark |= number(v)
			if !masked {
				m = "0xffffffff"
			}
			mark |= number(m)
		case "--nfmask", "--ctmask":
			if target == "CONNMARK" {
				mark |= number(value)
			}
		case "--zone", "--zone-orig", "--zone-reply":
			if target == "CT" {
				zone = uint16(number(value))
			}
		}
	}
	return mark, zone
}

func number(s string) uint32 {
	n, _ := strconv.ParseUint(s, 0, 32)
	return uint32(n)
}
