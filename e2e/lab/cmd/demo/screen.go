package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// screen is where the demo is shown. On a terminal pictures are repainted in place,
// in modest colour; anywhere else each is printed once, when it is finished.
type screen struct {
	w       io.Writer
	begin   time.Time
	live    bool
	colour  bool
	painted int           // lines of the picture that is to be repainted
	waited  time.Duration // at the start, see cpuWait
}

func newScreen(f *os.File) *screen {
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	live := err == nil && os.Getenv("TERM") != "dumb"
	return &screen{w: f, begin: time.Now(), live: live, colour: live && os.Getenv("NO_COLOR") == "", waited: cpuWait()}
}

// cpuWait is how long since boot anything on this machine had to wait for a
// processor; 0 where the kernel does not say.
func cpuWait() time.Duration {
	text, err := os.ReadFile("/proc/pressure/cpu")
	if err != nil {
		return 0
	}
	var us int64
	_, after, _ := strings.Cut(string(text), "total=")
	_, _ = fmt.Sscan(after, &us) // left 0 by what it cannot read
	return time.Duration(us) * time.Microsecond
}

// busy is the share of the time since the start in which processors were short.
func (s *screen) busy() float64 {
	return float64(cpuWait()-s.waited) / float64(time.Since(s.begin))
}

func (s *screen) print(text string) { fmt.Fprint(s.w, text) }

func (s *screen) printf(format string, args ...any) { fmt.Fprintf(s.w, format, args...) }

// step says what is being done, and how long after the start.
func (s *screen) step(format string, args ...any) {
	s.printf("[%5.1f s] %s\n", time.Since(s.begin).Seconds(), fmt.Sprintf(format, args...))
}

// title begins a part.
func (s *screen) title(format string, args ...any) {
	s.print("\n")
	s.step("%s", s.paint(bold, fmt.Sprintf(format, args...)))
}

// picture shows lines, on a terminal over those of the picture before. Elsewhere
// only the last one counts.
func (s *screen) picture(lines []string, last bool) {
	if s.live {
		if s.painted > 0 {
			s.printf("\x1b[%dA", s.painted)
		}
		for _, line := range lines {
			s.print("\x1b[K" + line + "\n")
		}
		s.painted = len(lines)
	} else if last {
		s.print(strings.Join(lines, "\n") + "\n")
	}
	if last {
		s.painted = 0
	}
}

// Colours of ECMA-48.
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
)

func (s *screen) paint(colour, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// marks colours a row of a picture, one run of equal marks at a time.
func (s *screen) marks(row string) string {
	var b strings.Builder
	for row != "" {
		run := row[:len(row)-len(strings.TrimLeft(row, row[:1]))]
		row = row[len(run):]
		switch run[0] {
		case answered:
			run = s.paint(green, run)
		case late:
			run = s.paint(yellow, run)
		case lost:
			run = s.paint(red, run)
		}
		b.WriteString(run)
	}
	return b.String()
}

// oneLine gives an error in one line.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}
