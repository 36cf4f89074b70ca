// Package tunnel says which device, rules and routes carry packets between the
// nodes and the holder of a VIP. It is pure; vxlan puts it into the kernel.
//
// There is one VXLAN-GPE device in external mode: no MAC, no FDB, no neighbour
// entries, the route carries the remote. Towards the gateways the remote is the
// VIP itself, so that a failover needs no change on any node.
package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Config is what both ends agree on.
type Config struct {
	Device string // name of the device
	Port   uint16 // UDP destination port
	VNI    uint32 // 24 bits
	Marks  Marks
	// RulePriority of our ip rules: before the main table's 32766.
	RulePriority int
	// TableBase is the routing table of mark slot 0; slot n has TableBase+n.
	TableBase int
}

// DefaultConfig keeps clear of flannel (UDP 8472), Calico (UDP 4789, marks
// 0xffff0000), kube-proxy (marks 0xc000), the portmap plugin (mark 0x2000), the AWS
// VPC plugin (mark 0x80) and kube-vip (mark 0x40). Nothing is clear of Cilium but the
// three bits that the others have taken.
func DefaultConfig() Config {
	return Config{
		Device: "sally0", Port: 4793, VNI: 51,
		Marks: Marks{Mask: 0x1f00}, RulePriority: 95, TableBase: 5300,
	}
}

// Marks divides a contiguous field of the packet mark into slots. Slot 0 is no
// mark, Down is for replies on their way to the pods, the others are VIPs.
type Marks struct{ Mask uint32 }

// Overhead of the tunnel in bytes: outer IPv4 (20), UDP (8), VXLAN-GPE (8).
const Overhead = 36

// Plan is the state wanted on one host, of one program ("agent" or "gateway").
type Plan struct {
	Local netip.Addr // the node's tunnel end, given to the device as /32
	// FirstTable to LastTable are the tables this program owns: what is found in
	// them, or among our rules that lead to them, and is not listed, is removed.
	FirstTable, LastTable int

	Rules  []Rule
	Routes []Route
}

// Rule sends packets whose mark has Value under Mask to Table.
type Rule struct {
	Value, Mask uint32
	Table       int
	Priority    int
}

// Route is one entry of one of our tables.
type Route struct {
	Table int
	Dst   netip.Prefix
	// Remote is the far tunnel end; the zero Addr makes a throw route: the
	// lookup goes on in the next table.
	Remote netip.Addr
}

// Validate says everything that is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if !strings.HasPrefix(c.Device, "sally") || len(c.Device) > 15 {
		errs = append(errs, fmt.Errorf("--tunnel-device %q: its name must begin with sally and have at most 15 characters", c.Device))
	}
	if c.Port == 0 {
		errs = append(errs, errors.New("--tunnel-port 0: give a UDP port"))
	}
	if c.VNI == 0 || c.VNI >= 1<<24 {
		errs = append(errs, fmt.Errorf("--tunnel-vni %d: give a number from 1 to 16777215", c.VNI))
	}
	if c.RulePriority < 1 || c.RulePriority > 32765 {
		errs = append(errs, fmt.Errorf("--rule-priority %d: give a number from 1 to 32765, before the main table", c.RulePriority))
	}
	if last := int64(c.TableBase) + int64(c.Marks.Down()); c.TableBase < 256 || last >= 1<<32 {
		errs = append(errs, fmt.Errorf("--table-base %d: give a number from 256 to %d, clear of the tables that the system has", c.TableBase, 1<<32-1-c.Marks.Down()))
	}
	return errors.Join(append(errs, c.Marks.Validate())...)
}
