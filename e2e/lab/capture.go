package lab

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Capture writes the frames of one interface to a file in pcap format
// (draft-ietf-opsawg-pcap), with nanoseconds.
type Capture struct {
	frames *os.File
	file   *os.File
	w      *bufio.Writer
	done   sync.WaitGroup
	once   sync.Once
	err    error
	count  int
}

const (
	pcapNanoMagic = 0xa1b23c4d
	pcapEthernet  = 1
	pcapSnapLen   = 65535
)

// Capture begins to capture on an interface of a host; the caller stops it, or the
// end of the lab does.
func (l *Lab) Capture(host, ifname, path string) (*Capture, error) {
	m, err := l.machine(host)
	if err != nil {
		return nil, err
	}
	c := &Capture{}
	if c.frames, err = openFrames(m.NS, ifname, unix.ETH_P_ALL); err != nil {
		return nil, err
	}
	if c.file, err = os.Create(path); err != nil {
		return nil, errors.Join(fmt.Errorf("capture: %w", err), c.frames.Close())
	}
	c.w = bufio.NewWriterSize(c.file, 1<<20)
	_, _ = c.w.Write(pcapHeader()) // a bufio.Writer keeps its error for Flush
	c.done.Go(c.record)
	l.onClose(func() error { _, err := c.Stop(); return err })
	return c, nil
}

// Stop ends the capture and gives the number of frames written.
func (c *Capture) Stop() (int, error) {
	c.once.Do(func() {
		_ = c.frames.SetReadDeadline(time.Now())
		c.done.Wait()
		c.err = errors.Join(c.w.Flush(), c.file.Close(), c.frames.Close())
	})
	return c.count, c.err
}

func (c *Capture) record() {
	readFrames(c.frames, func(at time.Time, frame []byte) {
		_, _ = c.w.Write(pcapRecord(at, len(frame)))
		_, _ = c.w.Write(frame)
		c.count++
	})
}

func pcapHeader() []byte {
	b := binary.LittleEndian.AppendUint32(nil, pcapNanoMagic)
	b = binary.LittleEndian.AppendUint16(b, 2) // version 2.4
	b = binary.LittleEndian.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...) // time zone and accuracy, always 0
	b = binary.LittleEndian.AppendUint32(b, pcapSnapLen)
	return binary.LittleEndian.AppendUint32(b, pcapEthernet)
}

func pcapRecord(at time.Time, length int) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(at.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(at.Nanosecond()))
	b = binary.LittleEndian.AppendUint32(b, uint32(length))
	return binary.LittleEndian.AppendUint32(b, uint32(length))
}
