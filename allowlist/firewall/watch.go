package firewall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// calm gathers what others change: loading a firewall anew is many messages.
const calm = 200 * time.Millisecond

// takesAway are the messages of nf_tables after which a set may hold less, or more.
var takesAway = []uint16{unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELSET, unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM}

// Watch calls changed soon after somebody changed sets of nftables on this host, until the
// context ends. ipset tells nobody of changes: there it only waits.
func (f *Sets) Watch(ctx context.Context, changed func()) error {
	if f.sets.Table == "" {
		<-ctx.Done()
		return nil
	}
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return fmt.Errorf("listen for changes of nftables: %w", err)
	}
	defer context.AfterFunc(ctx, socket.Close)()
	for ctx.Err() == nil {
		messages, _, err := socket.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // some were lost
		case err != nil:
			return fmt.Errorf("listen for changes of nftables: %w", err)
		}
		relevant := err != nil
		for _, m := range messages {
			relevant = relevant || slices.Contains(takesAway, m.Header.Type&0xff)
		}
		if !relevant {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(calm):
		}
		changed()
	}
	return nil
}
