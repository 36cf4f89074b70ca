package netfilter

// Pending is something of a table that the kernel lacks, or has otherwise than wanted.
type Pending struct {
	Set    bool   `json:"set,omitempty"` // elements of a set, or a whole one; else chains and rules
	Object string `json:"object"`        // as the packet filter's own tool has it
	Text   string `json:"text"`
}

func (p Pending) String() string { return p.Object + ": " + p.Text }
