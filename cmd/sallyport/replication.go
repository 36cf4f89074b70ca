package main

import (
	"fmt"
	"io"

	"github.com/sallyport/sallyport/gateway/host"
)

// printReplication says of each VIP who has its connections, as this gateway knows.
func printReplication(w io.Writer, vips []host.VIP) {
	fmt.Fprintln(w, "\nCONNECTIONS OF\tHERE\tREPLICATION")
	for _, v := range vips {
		switch r := v.Replication; {
		case r == nil:
			fmt.Fprintf(w, "%s\t%d\toff\n", v.VIP, v.Connections)
		case !v.Held && r.InStep:
			fmt.Fprintf(w, "%s\t%d\tin step with %s\n", v.VIP, v.Connections, v.Holder)
		case !v.Held:
			fmt.Fprintf(w, "%s\t%d\tnot in step: what was there stays\n", v.VIP, v.Connections)
		case len(r.Standbys) == 0:
			fmt.Fprintf(w, "%s\t%d\tno standby follows\n", v.VIP, v.Connections)
		default:
			fmt.Fprintf(w, "%s\t%d\t", v.VIP, v.Connections)
			for i, s := range r.Standbys {
				state := "in step"
				switch {
				case !s.InStep:
					state = "is catching up"
				case s.LagSeconds > 0:
					state = fmt.Sprintf("lags by %.0f ms", s.LagSeconds*1000)
				}
				if i > 0 {
					fmt.Fprint(w, ", ")
				}
				fmt.Fprintf(w, "%s %s", s.Name, state)
			}
			fmt.Fprintln(w)
		}
	}
}
