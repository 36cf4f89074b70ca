package main

import (
	"fmt"
	"os"
)

// conntrackdConf is the packaged example of the mode NOTRACK, for kernels that are
// always ready to take over. What nodes say to each other, the tunnel's outer packets
// among it, is not replicated. TCP's windows are not tracked unless asked for. The nodes' IPv4
// address is on the tunnel's device, too, where a group would be joined: so it is IPv6.
const conntrackdConf = `Sync {
	Mode NOTRACK {
		DisableExternalCache On
	}
	Multicast {
		IPv6_address ff02::50
		Group 3780
		Interface eth0
		SndSocketBuffer 1249280
		RcvSocketBuffer 1249280
		Checksum on
	}
}
General {
	HashSize 32768
	HashLimit 131072
	LogFile %[1]s.log
	LockFile %[1]s.lock
	UNIX {
		Path %[1]s.ctl
	}
	NetlinkBufferSize 2097152
	NetlinkBufferSizeMaxGrowth 8388608
	Filter From Userspace {
		Protocol Accept {
			TCP
			UDP
			ICMP
		}
		Address Ignore {
			IPv4_address 127.0.0.1
%[2]s		}
	}
}
`

// conntrackdNotify is what the packaged primary-backup.sh does at a change of role, but for
// one thing: a backup's timers are not shortened, for with no external cache they are those
// of the connections that it is to take over.
const conntrackdNotify = `#!/bin/sh
case "$1" in
primary) options="-c -f -R -B" ;;
backup) options="-n" ;;
esac
for o in $options; do conntrackd -C %s $o; done
`

func (v *vrrp) startConntrackd(j int) error {
	conf, ignored := v.file(j, "conntrackd.conf"), ""
	for k := 1; k <= v.w.Options.Nodes; k++ {
		ignored += fmt.Sprintf("\t\t\tIPv4_address %s\n", v.w.NodeIP(k))
	}
	for path, text := range map[string]string{
		conf:                fmt.Sprintf(conntrackdConf, v.file(j, "conntrackd"), ignored),
		v.file(j, "notify"): fmt.Sprintf(conntrackdNotify, conf),
	} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			return fmt.Errorf("configure conntrackd: %w", err)
		}
	}
	return v.run(j, "conntrackd", "-C", conf)
}
