package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/e2e/netns"
)

const (
	pathExchanges = 500
	pathConnects  = 50
	pathLarge     = 60_000 // bytes that TCP makes one packet of
	// pathPort is a pair of sockets of this program at the partner's.
	pathPort = 9011
)

// byHand is the design's packet path with no program, between what the throughput's
// ways compare: what it costs more is ours, what it costs itself is the design's.
var byHand = way{name: "by-hand", title: "the design's path made by hand", suffix: "d", make: func(w *world) error {
	_, err := w.MakeByHand(1, pod(1), pod(2), pod(3))
	return err
}}

// alone replicates nothing: what it costs less for a connection is the kernel's telling of events.
var alone = way{
	name: "alone", title: "sallyport, `--replicate=false`", suffix: "u",
	options: lab.Options{GatewayArgs: []string{"--replicate=false"}}, make: (*world).start,
}

// stretch is both ends of a path, in one thread: whoever sends carries the packet all
// the way to the other end's queue, through every namespace, before the call returns.
type stretch struct {
	*world
	pod, partner, listener int
	stream, sink           int // the ends of a connection of TCP
	from                   *netns.NS

	there, back, large, connect trials // medians of rounds, seconds
}

// path measures what a packet costs: the time of one send, which holds all that the
// kernel does with it and nothing that other work on the machine does.
func (b *bench) path(ctx context.Context) (_ string, err error) {
	measured := slices.Insert(slices.Clone(ways), 2, byHand, alone)
	results := map[string]*stretch{}
	defer func() {
		for _, s := range results {
			err = errors.Join(err, s.close())
		}
	}()
	for _, v := range measured {
		if !b.wants(v.name) {
			continue
		}
		progress("path: making %s", v.title)
		w, err := b.up(v.suffix, v.options)
		if err != nil {
			return "", err
		}
		s := &stretch{world: w, pod: -1, partner: -1, listener: -1, stream: -1, sink: -1}
		results[v.name] = s
		if err := v.make(w); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", v.title, err, w.LogTails(10))
		}
		if err := s.open(); err != nil {
			return "", fmt.Errorf("%s: %w", v.title, err)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for n := range b.trials {
		for i := range measured {
			v := measured[(i+n)%len(measured)]
			s := results[v.name]
			if s == nil {
				continue
			}
			if err := errors.Join(ctx.Err(), s.round()); err != nil {
				return "", fmt.Errorf("round %d of %s: %w\n%s", n+1, v.title, err, s.LogTails(10))
			}
		}
		progress("path %d/%d", n+1, b.trials)
	}
	return pathText(measured, results), nil
}

// open the sockets, of a pod that is not on the gateway's node.
func (s *stretch) open() error {
	from := pod(2)
	if len(s.programs()) > 0 {
		holder, err := s.holder()
		if err != nil {
			return err
		}
		from = pod(s.Others(holder)[0])
	}
	to := &unix.SockaddrInet4{Port: pathPort, Addr: lab.PartnerAddr.As4()}
	late := unix.NsecToTimeval(int64(time.Second))
	socket := func(in string, kind int, use func(fd int) error) (fd int, err error) {
		ns, err := s.Namespace(in)
		if err != nil {
			return -1, err
		}
		err = ns.Do(func() error {
			if fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &late), use(fd))
		})
		return fd, err
	}
	var errs [4]error
	s.partner, errs[0] = socket(lab.PartnerHost, unix.SOCK_DGRAM, func(fd int) error { return unix.Bind(fd, to) })
	s.listener, errs[1] = socket(lab.PartnerHost, unix.SOCK_STREAM, func(fd int) error {
		return errors.Join(unix.Bind(fd, to), unix.Listen(fd, 8))
	})
	s.pod, errs[2] = socket(from, unix.SOCK_DGRAM, func(fd int) error { return unix.Connect(fd, to) })
	s.stream, errs[3] = socket(from, unix.SOCK_STREAM, func(fd int) error { return unix.Connect(fd, to) })
	err := errors.Join(errs[:]...)
	if err == nil {
		s.sink, _, err = unix.Accept4(s.listener, unix.SOCK_CLOEXEC)
	}
	if err == nil {
		err = unix.SetsockoptTimeval(s.sink, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &late)
	}
	if err != nil {
		return fmt.Errorf("open sockets in %s and at the partner's: %w", from, err)
	}
	s.from, err = s.Namespace(from)
	return err
}

func (s *stretch) close() error {
	for _, fd := range []int{s.pod, s.partner, s.stream, s.sink, s.listener} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	return s.Close()
}

// round takes the median of many datagrams to and fro, and of connections.
func (s *stretch) round() error {
	var there, back, connect trials
	message := make([]byte, 64)
	for range pathExchanges {
		began := time.Now()
		_, err := unix.Write(s.pod, message)
		there.add(time.Since(began))
		if err != nil {
			return fmt.Errorf("send from the pod: %w", err)
		}
		_, from, err := unix.Recvfrom(s.partner, message, 0)
		if err != nil {
			return fmt.Errorf("receive at the partner's: %w", err)
		}
		began = time.Now()
		err = unix.Sendto(s.partner, message, 0, from)
		back.add(time.Since(began))
		if err != nil {
			return fmt.Errorf("answer from the partner: %w", err)
		}
		if _, err := unix.Read(s.pod, message); err != nil {
			return fmt.Errorf("receive in the pod: %w", err)
		}
	}
	large, err := s.carry()
	if err != nil {
		return err
	}
	err = s.from.Do(func() error {
		for range pathConnects {
			began := time.Now()
			if err := connectOnce(partnerPort(pathPort)); err != nil {
				return err
			}
			connect.add(time.Since(began))
			fd, _, err := unix.Accept(s.listener)
			if err != nil {
				return fmt.Errorf("accept at the partner's: %w", err)
			}
			unix.Close(fd)
		}
		return nil
	})
	s.there, s.back = append(s.there, there.median()), append(s.back, back.median())
	s.large, s.connect = append(s.large, large.median()), append(s.connect, connect.median())
	return err
}

// carry writes as much as TCP makes one packet of and reads it, each time: the packet's way, that of what
// acknowledges it, and two copies of the bytes.
func (s *stretch) carry() (took trials, _ error) {
	message := make([]byte, pathLarge)
	for range pathExchanges {
		began := time.Now()
		if _, err := unix.Write(s.stream, message); err != nil {
			return nil, fmt.Errorf("write %d bytes in the pod: %w", len(message), err)
		}
		for left := len(message); left > 0; {
			n, err := unix.Read(s.sink, message[:left])
			if n == 0 && err == nil {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return nil, fmt.Errorf("read %d bytes at the partner's: %w", left, err)
			}
			left -= n
		}
		took.add(time.Since(began))
	}
	return took, nil
}

func pathText(measured []way, results map[string]*stretch) string {
	text := fmt.Sprintf(`## What a packet costs

Sender and receiver are one thread, so that the time of a send is what the kernels of pod, node, gateway, router
and partner do with the packet, one after the other, and other work on the machine hardly shows: a round is the median of %[1]d datagrams of
64 bytes each way, of %[1]d large packets of TCP (%[3]d bytes written and read, and what acknowledges them) and of %[2]d connections (three packets and a reset). "the design's path made by hand" is tunnel, marks, rules
and nothing else, on the same kernel features, with no program running.

`, pathExchanges, pathConnects, pathLarge)
	rows := [][]string{{
		"median / p95, µs", "to the partner", "back", "large packet", "connection", "both ways to hand-made", "large packet to hand-made", "connection to hand-made",
	}}
	cell := func(t trials) string { return fmt.Sprintf("%.1f / %.1f", 1e6*t.median(), 1e6*t.quantile(.95)) }
	for _, v := range measured {
		s := results[v.name]
		if s == nil {
			continue
		}
		row := []string{v.title, cell(s.there), cell(s.back), cell(s.large), cell(s.connect), "-", "-", "-"}
		if base := results[handMade]; base != nil {
			row[5] = fmt.Sprintf("%.2f", (s.there.median()+s.back.median())/(base.there.median()+base.back.median()))
			row[6] = fmt.Sprintf("%.2f", s.large.against(base.large).median())
			row[7] = fmt.Sprintf("%.2f", s.connect.against(base.connect).median())
		}
		rows = append(rows, row)
	}
	return text + table(rows)
}
