package lab

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// standIn is a program that says how it was started and ends on SIGTERM: what the
// lab does to programs is the same for any.
func standIn() {
	go func() {
		addr := os.Args[slices.Index(os.Args, "--http")+1]
		fmt.Println(http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]string{"args": strings.Join(os.Args[1:], " ")})
		})))
	}()
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	<-term
	fmt.Println("bye")
	os.Exit(0)
}
