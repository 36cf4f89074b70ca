package tcx

import (
	"github.com/cilium/ebpf/asm"
)

// lendOut is for the way out to partners. What comes there by itself was admitted and translated by
// netfilter, and let through by the fence: packets of its pod need not be for the next second.
// Of what is not known yet, packets are counted.
func lendOut(k pairs, g Front) asm.Instructions {
	p := bySlowPath()
	p = append(p, within(ethernet+ipv4+udp)...)
	p = append(p, ofVIP(g.VIPs, ethernet+12)...)
	p = append(p, flowOf(ethernet, false)...)
	p = append(p, labelled("parsed", onMap(asm.FnMapLookupElem, k.home, onStackKey))...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "new"),
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.LoadMem(asm.R1, asm.R8, pairOpen, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "counted"),
	)
	p = append(p, other(asm.R8)...)
	p = append(p, onMap(asm.FnMapLookupElem, k.out, onStackOther)...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "stale"),
		asm.Mov.Reg(asm.R9, asm.R0),
		asm.LoadMem(asm.R1, asm.R9, outInterface, asm.Word),
		asm.LoadMem(asm.R2, asm.R6, skbInterface, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R2, "next"),
	)
	p = append(p, lent(asm.R9, asm.R8)...)
	p = append(p, labelled("stale", forgotten(asm.R8, k.home, k.out))...)
	p = append(p, asm.Ja.Label("next"))
	p = append(p,
		asm.LoadMem(asm.R1, asm.R8, homeSlow, asm.Word).WithSymbol("counted"),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R8, homeSlow, asm.R1, asm.Word),
		asm.JLT.Imm(asm.R1, long, "next"),
		asm.Mov.Reg(asm.R2, asm.R1), // what cannot be let go is told of ever more seldom: at powers of two
		asm.Sub.Imm(asm.R2, 1),
		asm.And.Reg(asm.R1, asm.R2),
		asm.JNE.Imm(asm.R1, 0, "next"),
		asm.LoadMem(asm.R1, asm.R6, skbInterface, asm.Word),
		asm.StoreMem(asm.RFP, onStackFlow+16, asm.R1, asm.DWord),
	)
	for at := int16(0); at < -onStackKey; at += 8 {
		p = append(p, asm.LoadMem(asm.R1, asm.RFP, onStackKey+at, asm.DWord), asm.StoreMem(asm.RFP, onStackFlow+at, asm.R1, asm.DWord))
	}
	p = append(p, told(k.long, onStackFlow, -onStackKey+8)...)
	p = append(p, labelled("new", cleared(onStackFlow, pairSize))...)
	p = append(p, asm.StoreImm(asm.RFP, onStackFlow+homeSlow, 1, asm.Word))
	p = append(p, put(k.home)...)
	return append(p, end(kernel{}, false, false)...)
}

// lendHome is for the tunnel device's way out. What comes there by itself is a reply that tracking
// knows: those of the next second need not be looked at.
func lendHome(k pairs, g Front) asm.Instructions {
	p := append(asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}, anyIPv4()...)
	p = append(p, flowOf(inTunnel, true)...)
	p = append(p, paired(k.out)...)
	p = append(p, tunnelKey(g.Device)...)
	p = append(p,
		// It is read as if it had been received: the far end is the local one.
		asm.LoadMem(asm.R1, asm.RFP, onStackTunnel+tunnelLocal, asm.Word),
		asm.HostTo(asm.BE, asm.R1, asm.Word),
		asm.LoadMem(asm.R2, asm.R8, outNode, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R2, "next"),
	)
	p = append(p, other(asm.R8)...)
	p = append(p, onMap(asm.FnMapLookupElem, k.home, onStackOther)...)
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "next"),
		asm.LoadMem(asm.R1, asm.R0, pairOpen, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "next"),
		asm.Mov.Reg(asm.R9, asm.R0),
	)
	p = append(p, lent(asm.R9, asm.R8)...)
	p = append(p, labelled("stale", forgotten(asm.R8, k.out, k.home))...)
	return append(p, end(kernel{}, false, false)...)
}

// lent gives the half in one register a lease, if the other half is the same connection's. One of
// which nothing was seen for some time may have ended meanwhile, and another pod may have its
// translation: it is learned anew, by "stale".
func lent(half, whole asm.Register) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, half, pairAddr, asm.Word),
		asm.LoadMem(asm.R2, asm.RFP, onStackKey, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R2, "stale"),
		asm.LoadMem(asm.R1, half, pairPort, asm.Half),
		asm.LoadMem(asm.R2, asm.RFP, onStackKey+8, asm.Half),
		asm.JNE.Reg(asm.R1, asm.R2, "stale"),
		asm.FnKtimeGetBootNs.Call(),
		asm.LoadMem(asm.R1, half, pairUntil, asm.DWord),
		asm.LoadMem(asm.R2, whole, pairUntil, asm.DWord),
		asm.JGE.Reg(asm.R1, asm.R2, "later"),
		asm.Mov.Reg(asm.R1, asm.R2),
		asm.LoadImm(asm.R2, int64(remembered), asm.DWord).WithSymbol("later"),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.JGE.Reg(asm.R0, asm.R1, "stale"),
		asm.Add.Imm(asm.R0, int32(lease)),
		asm.StoreMem(half, pairUntil, asm.R0, asm.DWord),
		asm.Ja.Label("next"),
	}
}
