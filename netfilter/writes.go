package netfilter

// Writes is what the rules of one chain of others write into what we use too: a
// clash of marks or zones shows there.
type Writes struct {
	// Where names the chain for a reader, such as "nftables table ip nat, chain KUBE-MARK-MASQ".
	Where string
	// Mark are the bits of the packet or connection mark that they do not preserve.
	Mark  uint32
	Zones []uint16 // zones of connection tracking that they put packets in
}
