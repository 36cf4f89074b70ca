// Package lastview keeps the last good Snapshot on disk, so that a host that
// starts without its source steers and translates as before.
package lastview

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/sallyport/sallyport/gateway"
)

// version is raised whenever the meaning of a field changes: a view must not be
// half understood.
const version = 1

const header = "sallyport-view %d crc32c %08x\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Save replaces the file by the view. Whatever happens meanwhile, the file holds
// the old view or the new one.
func Save(file string, s gateway.Snapshot) error {
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode the view: %w", err)
	}
	return Replace(file, fmt.Appendf(nil, header, version, crc32.Checksum(body, castagnoli)), body)
}

// Restore reads a view that Save wrote. The error says why it cannot be used; it
// is fs.ErrNotExist when none was saved.
func Restore(file string) (gateway.Snapshot, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return gateway.Snapshot{}, fmt.Errorf("read the saved view: %w", err)
	}
	s, err := decode(raw)
	if err != nil {
		return gateway.Snapshot{}, fmt.Errorf("saved view %s: %w: it is written anew once the source gives a view; delete it to be rid of this message", file, err)
	}
	return s, nil
}

func decode(raw []byte) (gateway.Snapshot, error) {
	var s gateway.Snapshot
	first, body, found := bytes.Cut(raw, []byte("\n"))
	var v int
	var sum uint32
	if n, err := fmt.Sscanf(string(first)+"\n", header, &v, &sum); !found || n != 2 || err != nil {
		return s, errors.New("not a saved view, or cut short")
	}
	if v != version {
		return s, fmt.Errorf("written in format %d, this program reads %d", v, version)
	}
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return s, fmt.Errorf("damaged: checksum %08x, written as %08x", got, sum)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return gateway.Snapshot{}, fmt.Errorf("damaged: %w", err)
	}
	return s, nil
}
