package conntrack

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Find reads the one entry of a zone whose answers have a tuple. errors.Is(err, fs.ErrNotExist)
// tells that there is none.
func Find(reply Tuple, zone uint16) (found Entry, err error) {
	var r request
	r.begin(getEntries, unix.NLM_F_ACK, 1, reply.family())
	reply.put(&r, ctaTupleReply)
	if zone != 0 {
		r.put16(ctaZone, zone)
	}
	r.end()
	if err := dump(r.b, func(m []byte) (err error) {
		found, err = parse(m)
		return err
	}); err != nil {
		return Entry{}, fmt.Errorf("find the tracked connection that %s answers in zone %d: %w", reply, zone, err)
	}
	return found, nil
}
