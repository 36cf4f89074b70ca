package audit

// owner of a connection, as of a view.
type owner struct {
	Pod
	view int
}

// whose a connection is by the directory. Connections of one pod share it.
func (b *Book) whose(k Key, d *Directory) *owner {
	if b.of != d {
		b.of, b.pods = d, map[[16]byte]*owner{}
		b.view++
	}
	p := b.pods[k.Src]
	if p == nil {
		pod, known := d.pod(k.src())
		if !known {
			return &nobody // of whom there may be any number
		}
		p = &owner{pod, b.view}
		b.pods[k.Src] = p
	}
	return p
}

var nobody owner

// has tells whether the pod still has the connection's address.
func (b *Book) has(k Key, pod *owner, d *Directory) bool {
	return b.of == d && pod.view == b.view || b.whose(k, d).Pod == pod.Pod
}
