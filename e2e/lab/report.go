package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// reported are the listings of a node's kernel, each to a file; counters and ages
// included.
var reported = map[string]string{
	"nft":         "nft -a list ruleset",
	"iptables":    "iptables-nft-save -c; iptables-legacy-save -c 2>/dev/null",
	"ipset":       "ipset list",
	"rules":       "ip rule; ip -6 rule",
	"routes":      "ip route show table all; ip -6 route show table all",
	"links":       "ip -d -s link; ip addr; ip neigh",
	"connections": "conntrack -L 2>&1",
	"sockets":     "ss -tunap",
}

// WriteReport writes what one wants to see when something went wrong into a folder: the
// kernel of every node, also of one without power, the programs' logs, and what the
// partner saw. What cannot be had is named in its place.
func (l *Lab) WriteReport(dir string) error {
	var errs []error
	write := func(file, text string, err error) {
		if err != nil {
			text += fmt.Sprintf("\n%v\n", err)
		}
		path := filepath.Join(dir, file)
		errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
	}
	for j := 1; j <= l.Options.Nodes; j++ {
		for name, script := range reported {
			out, err := l.Exec(NodeName(j), "sh", "-c", script)
			write(filepath.Join(NodeName(j), name+".txt"), out, err)
		}
	}
	logs, err := filepath.Glob(filepath.Join(l.logDir(), "*.log"))
	errs = append(errs, err)
	for _, path := range logs {
		text, err := os.ReadFile(path)
		write(filepath.Join("logs", filepath.Base(path)), string(text), err)
	}
	refused, err := l.Partner.Refused()
	text := fmt.Sprintf("seen: %v\nrefused:\n", l.Partner.Seen(""))
	for _, r := range refused {
		text += fmt.Sprintf("%+v\n", r)
	}
	write("partner.txt", text, err)
	return errors.Join(errs...)
}
