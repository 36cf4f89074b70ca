package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/sallyport/sallyport/gateway/node/gate"
)

// firstPackets are the flags of the gate that pods wait at after a boot.
type firstPackets struct {
	confDir, binDir, runDir string
	gate                    bool
}

func (p *firstPackets) register(f *pflag.FlagSet) {
	f.StringVar(&p.confDir, "cni-conf-dir", "", "folder of the CNI's configuration on this host, such as /etc/cni/net.d; without it nothing is installed there")
	f.StringVar(&p.binDir, "cni-bin-dir", "", "folder of the CNI's plugins on this host, such as /opt/cni/bin")
	f.StringVar(&p.runDir, "run-dir", gate.RunDir, "folder, emptied by a boot, for the mark that the rules are in place")
}

func (p *firstPackets) config() (gate.Config, error) {
	self, err := os.Executable()
	if err != nil {
		return gate.Config{}, fmt.Errorf("find %s beside this program: %w", gate.Plugin, err)
	}
	c := gate.Config{ConfDir: p.confDir, BinDir: p.binDir, RunDir: p.runDir, Off: !p.gate, Program: filepath.Join(filepath.Dir(self), gate.Plugin)}
	return c, c.Validate()
}
