package lab

import (
	"fmt"
	"strings"
)

// masqueradeTable is an nft-native CNI's, at the priority such CNIs use (srcnat, 100).
const masqueradeTable = `table ip cni {
	chain postrouting {
		type nat hook postrouting priority srcnat
		ip saddr %[1]s ip daddr != %[1]s masquerade
	}
}
`

// Masquerade makes the CNI's masquerade on node j as the options say.
func (l *Lab) Masquerade(j int) error { return l.masquerade(j, "-A", masqueradeTable) }

// Unmasquerade takes it away.
func (l *Lab) Unmasquerade(j int) error { return l.masquerade(j, "-D", "delete table ip cni\n") }

func (l *Lab) masquerade(j int, action, script string) error {
	n, err := l.machine(NodeName(j))
	if err != nil {
		return err
	}
	switch way := l.Options.Masquerade; way {
	case NoMasquerade:
		return nil
	case MasqueradeNft:
		if strings.Contains(script, "%") {
			script = fmt.Sprintf(script, podNet)
		}
		return n.nft(script)
	default:
		_, err := n.Run(string(way), "-w", "-t", "nat", action, "POSTROUTING",
			"-s", podNet.String(), "!", "-d", podNet.String(), "-j", "MASQUERADE")
		return err
	}
}

// nft carries out a script, all of it or nothing.
func (m *machine) nft(script string) error {
	cmd := m.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft in %s: %w: %s", m.Name, err, out)
	}
	return nil
}
