package bench

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// neighbour is an action script that does nothing. One before and one after the program
// make CRIU log the program's start and end.
const neighbour = "/bin/true"

// installTimed makes a build of the program CRIU's action script, between two others.
func installTimed(b *testing.B, program string) {
	b.Helper()
	lab.InstallActionScript(b, neighbour)
	text := "action-script " + neighbour + "\naction-script " + program + "\naction-script " + neighbour + "\n"
	if err := os.WriteFile("/etc/criu/default.conf", []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
}

var (
	running = regexp.MustCompile(`^\(\d+\.\d+\) Running (\S+) scripts$`)
	started = regexp.MustCompile(`^\((\d+\.\d+)\) \t\[(\S+)\]$`)
)

// stageTimes reads from CRIU's log how long it waited for the program at each stage,
// including process start and end.
func stageTimes(b *testing.B, program, log string) map[string]time.Duration {
	b.Helper()
	stages := make(map[string]time.Duration)
	var stage string
	var begin float64
	for line := range strings.Lines(log) {
		line = strings.TrimRight(line, "\n")
		if m := running.FindStringSubmatch(line); m != nil {
			stage, begin = m[1], 0
		}
		m := started.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		at, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			b.Fatal(err)
		}
		if m[2] == program {
			begin = at
		} else if begin > 0 {
			stages[stage] = time.Duration((at - begin) * float64(time.Second))
			begin = 0
		}
	}
	for _, wanted := range workStages {
		if stages[wanted] == 0 {
			b.Fatalf("CRIU's log has no duration of the program at %s", wanted)
		}
	}
	return stages
}
