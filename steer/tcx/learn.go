package tcx

import (
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// learn is for the tunnel's way out. What comes there by itself was let out by netfilter
// and routed into the tunnel: the flow's packets of the next second need not be.
func learn(k kernel, d Device) asm.Instructions {
	p := bySlowPath()
	p = append(p, flowOf(inTunnel, false)...)
	p = append(p, labelled("parsed", onMap(asm.FnMapLookupElem, k.homes, onStackKey))...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "next"), // no pod's of this node, but a reply of a gateway on it
	)
	p = append(p, tunnelKey(d)...)
	p = append(p,
		asm.FnKtimeGetCoarseNs.Call(),
		asm.Mov.Reg(asm.R9, asm.R0),
		asm.Add.Imm(asm.R9, int32(lease)),
		// It is read as if it had been received (bpf_skb_get_tunnel_key, net/core/filter.c):
		// the far end is the local one.
		asm.LoadMem(asm.R7, asm.RFP, onStackTunnel+tunnelLocal, asm.Word),
		asm.LoadMem(asm.R8, asm.RFP, onStackTunnel+tunnelRemote, asm.Word),
	)
	p = append(p, cleared(onStackFlow, flowSize)...)
	p = append(p,
		asm.StoreMem(asm.RFP, onStackFlow+flowUntil, asm.R9, asm.DWord),
		asm.StoreMem(asm.RFP, onStackFlow+flowRemote, asm.R7, asm.Word),
		asm.StoreMem(asm.RFP, onStackFlow+flowLocal, asm.R8, asm.Word),
	)
	p = append(p, k.seal.made(words(onStackFlow+flowRemote)...)...)
	p = append(p, asm.StoreMem(asm.RFP, onStackFlow+flowWay, asm.R1, asm.DWord))
	p = append(p, onMap(asm.FnMapLookupElem, k.flows, onStackKey)...)
	p = append(p, asm.JEq.Imm(asm.R0, 0, "new"))
	for _, at := range []int16{flowRemote, flowWay, flowUntil} {
		p = append(p, asm.LoadMem(asm.R1, asm.RFP, onStackFlow+at, asm.DWord), asm.StoreMem(asm.R0, at, asm.R1, asm.DWord))
	}
	p = append(p,
		asm.LoadMem(asm.R1, asm.R0, flowOpen, asm.Byte),
		asm.JNE.Imm(asm.R1, 0, "next"),
		asm.LoadMem(asm.R1, asm.R0, flowSlow, asm.Word),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, flowSlow, asm.R1, asm.Word),
		asm.And.Imm(asm.R1, long-1),
		asm.JNE.Imm(asm.R1, 0, "next"),
	)
	p = append(p, told(k.long, onStackKey, -onStackKey)...)
	p = append(p, newFlow(k)...)
	return append(p, end(k, false, false)...)
}

// newFlow: only TCP has windows, so that others are open at once. TCP's first packets are
// not learned, so that tracking has seen both directions by the first that is.
func newFlow(k kernel) asm.Instructions {
	p := asm.Instructions{
		asm.LoadMem(asm.R1, asm.RFP, onStackKey+12, asm.Word).WithSymbol("new"),
		asm.JEq.Imm(asm.R1, unix.IPPROTO_TCP, "of-tcp"),
		asm.StoreImm(asm.RFP, onStackFlow+flowOpen, 1, asm.Byte),
		asm.Ja.Label("put"),
		asm.StoreImm(asm.RFP, onStackFlow+flowReplied, 1, asm.Byte).WithSymbol("of-tcp"),
	}
	return append(p, labelled("put", put(k.flows))...)
}
