package nft

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/netfilter"
)

// family of a table; the kernel's numbers are those of the address families.
type family uint8

const (
	ipv4 family = unix.NFPROTO_IPV4
	ipv6 family = unix.NFPROTO_IPV6
	arp  family = unix.NFPROTO_ARP
)

func (f family) String() string { return map[family]string{ipv4: "ip", ipv6: "ip6", arp: "arp"}[f] }

// Attributes of include/uapi/linux/netfilter/nf_tables.h that x/sys/unix lacks.
const (
	elemObjRef = 9
	elemKeyEnd = 10
)

// present is a table as the kernel has it.
type present struct {
	exists   bool
	flags    uint32
	chains   map[string]chainShape
	rules    map[string][]string // the comments of each chain's rules, in order
	sets     map[string]setShape // maps are sets that map
	elements map[string]elements
	counters map[string]netfilter.Counts
}

// chainShape is what cannot be changed in a chain that exists.
type chainShape struct {
	kind     string // "" for a regular chain
	hook     uint32
	priority int32
	policy   uint32
}

// setShape is what cannot be changed in a set that exists.
type setShape struct {
	flags    uint32
	keyLen   uint32
	dataType uint32
	object   uint32
}

// read reads the table whole, and tells of which generation of the rules it is. It
// repeats when someone changed the rules meanwhile, because the kernel's dumps are only
// consistent within one.
func read(f family, table string) (p *present, of uint32, err error) {
	for range 20 {
		before, err := generation()
		if err != nil {
			return nil, 0, err
		}
		p, err := readOnce(f, table)
		if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
			return nil, 0, fmt.Errorf("read table %s %s: %w", f, table, err)
		}
		after, errAfter := generation()
		if errAfter != nil {
			return nil, 0, errAfter
		}
		if err == nil && before == after {
			return p, after, nil
		}
	}
	return nil, 0, fmt.Errorf("read table %s %s: the rules never stood still", f, table)
}

func generation() (id uint32, err error) {
	err = request(unix.NFT_MSG_GETGEN, 0, 0, nil, func(kind uint16, value string) error {
		if kind == unix.NFTA_GEN_ID {
			id = be32(value)
		}
		return nil
	}, func() {})
	if err != nil {
		return 0, fmt.Errorf("ask for the generation of the rules: %w", err)
	}
	return id, nil
}

func readOnce(f family, table string) (*present, error) {
	p := &present{
		chains: map[string]chainShape{}, rules: map[string][]string{}, sets: map[string]setShape{},
		elements: map[string]elements{}, counters: map[string]netfilter.Counts{},
	}
	tables, err := listTables(f)
	if err != nil {
		return nil, err
	}
	if p.flags, p.exists = tables[table]; !p.exists {
		return p, nil
	}
	if err := p.readChains(f, table); err != nil {
		return nil, fmt.Errorf("chains: %w", err)
	}
	if err := p.readRules(f, table); err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	if err := p.readSets(f, table); err != nil {
		return nil, fmt.Errorf("sets: %w", err)
	}
	for name := range p.sets {
		if p.elements[name], err = readElements(f, table, name); err != nil {
			return nil, fmt.Errorf("elements of %s: %w", name, err)
		}
	}
	p.counters, err = readCounters(f, table)
	return p, err
}

func listTables(f family) (map[string]uint32, error) {
	tables := map[string]uint32{}
	var name string
	var flags uint32
	err := request(unix.NFT_MSG_GETTABLE, f, unix.NLM_F_DUMP, nil, func(kind uint16, value string) error {
		switch kind {
		case unix.NFTA_TABLE_NAME:
			name = text(value)
		case unix.NFTA_TABLE_FLAGS:
			flags = be32(value)
		}
		return nil
	}, func() { tables[name], flags = flags, 0 })
	return tables, err
}

func (p *present) readChains(f family, table string) error {
	var name, of string
	var shape chainShape
	// Not every kernel filters chains by table.
	return request(unix.NFT_MSG_GETCHAIN, f, unix.NLM_F_DUMP, nil, func(kind uint16, value string) error {
		switch kind {
		case unix.NFTA_CHAIN_TABLE:
			of = text(value)
		case unix.NFTA_CHAIN_NAME:
			name = text(value)
		case unix.NFTA_CHAIN_TYPE:
			shape.kind = text(value)
		case unix.NFTA_CHAIN_POLICY:
			shape.policy = be32(value)
		case unix.NFTA_CHAIN_HOOK:
			return each(value, func(kind uint16, value string) error {
				switch kind {
				case unix.NFTA_HOOK_HOOKNUM:
					shape.hook = be32(value)
				case unix.NFTA_HOOK_PRIORITY:
					shape.priority = int32(be32(value))
				}
				return nil
			})
		}
		return nil
	}, func() {
		if of == table {
			p.chains[name] = shape
		}
		shape = chainShape{}
	})
}

func (p *present) readRules(f family, table string) error {
	var chain, of, comment string
	return request(unix.NFT_MSG_GETRULE, f, unix.NLM_F_DUMP, named(unix.NFTA_RULE_TABLE, table), func(kind uint16, value string) error {
		switch kind {
		case unix.NFTA_RULE_TABLE:
			of = text(value)
		case unix.NFTA_RULE_CHAIN:
			chain = text(value)
		case unix.NFTA_RULE_USERDATA:
			comment = commentOf(value)
		}
		return nil
	}, func() {
		if of == table {
			p.rules[chain] = append(p.rules[chain], comment)
		}
		comment = ""
	})
}

// commentOf finds the comment in a rule's user data: type, length, value, as
// libnftnl's udata.h lays them out.
func commentOf(data string) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		value := data[2 : 2+int(data[1])]
		if data[0] == 0 {
			return text(value)
		}
		data = data[2+len(value):]
	}
	return ""
}

func (p *present) readSets(f family, table string) error {
	var name string
	var shape setShape
	return request(unix.NFT_MSG_GETSET, f, unix.NLM_F_DUMP, named(unix.NFTA_SET_TABLE, table), func(kind uint16, value string) error {
		switch kind {
		case unix.NFTA_SET_NAME:
			name = text(value)
		case unix.NFTA_SET_FLAGS:
			shape.flags = be32(value)
		case unix.NFTA_SET_KEY_LEN:
			shape.keyLen = be32(value)
		case unix.NFTA_SET_DATA_TYPE:
			shape.dataType = be32(value)
		case unix.NFTA_SET_OBJ_TYPE:
			shape.object = be32(value)
		}
		return nil
	}, func() {
		if shape.flags&unix.NFT_SET_ANONYMOUS == 0 {
			p.sets[name] = shape
		}
		shape = setShape{}
	})
}

func readCounters(f family, table string) (map[string]netfilter.Counts, error) {
	counters := map[string]netfilter.Counts{}
	var name, of string
	var object uint32
	var counts netfilter.Counts
	err := request(unix.NFT_MSG_GETOBJ, f, unix.NLM_F_DUMP, named(unix.NFTA_OBJ_TABLE, table), func(kind uint16, value string) error {
		switch kind {
		case unix.NFTA_OBJ_TABLE:
			of = text(value)
		case unix.NFTA_OBJ_NAME:
			name = text(value)
		case unix.NFTA_OBJ_TYPE:
			object = be32(value)
		case unix.NFTA_OBJ_DATA:
			return each(value, func(kind uint16, value string) error {
				switch kind {
				case unix.NFTA_COUNTER_BYTES:
					counts.Bytes = be64(value)
				case unix.NFTA_COUNTER_PACKETS:
					counts.Packets = be64(value)
				}
				return nil
			})
		}
		return nil
	}, func() {
		if of == table && object == unix.NFT_OBJECT_COUNTER {
			counters[name] = counts
		}
		counts = netfilter.Counts{}
	})
	return counters, err
}
