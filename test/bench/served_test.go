package bench

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// builds are the builds of the program to measure: the one under test, and those of
// BEFORE="/path ...".
func builds() []string {
	return append([]string{lab.Hook()}, strings.Fields(os.Getenv("BEFORE"))...)
}

// BenchmarkServed measures how long processes wait for the direct maps of automount
// that read them in a loop from the resume on; and, as what automount itself takes for
// its mounts, in containers that were never checkpointed. BEFORE=/path is another build
// of the program, measured in the same rounds.
func BenchmarkServed(b *testing.B) {
	lab.RequireNode(b)
	const rounds, processes = 5, 2
	programs := builds()
	var direct []lab.Access
	for _, a := range lab.Accesses {
		if strings.HasPrefix(a.Path, "/direct/") {
			direct = append(direct, a)
		}
	}
	start := func() (*lab.Container, *lab.Touchers) {
		c := lab.Start(b, lab.Options{Roles: true, Files: lab.ToucherFiles(processes, direct), MountRateLimit: true})
		touchers := c.StartTouchers(b, processes)
		settle(b, c)
		return c, touchers
	}
	var fresh series
	for range rounds {
		_, touchers := start()
		touchers.Release(b)
		fresh.add(slowestRead(b, touchers))
	}
	c, touchers := start()
	checkpoint := c.Checkpoint(b)
	longest := make([]series, len(programs))
	for range rounds {
		for i, program := range programs {
			// A release that does not create the control groups restores with these.
			lab.InstallWrappedScript(b, program, checkpoint.GroupsShell())
			restored := checkpoint.Restore(b, lab.RestoreOptions{Before: func() { touchers.Release(b) }})
			longest[i].add(slowestRead(b, touchers))
			end(b, restored)
		}
	}
	fmt.Printf("\n%s\nThe longest of all reads of %d direct maps by %d processes in a loop, from the resume on; medians of %d restores.\n\n",
		machine(), len(direct), processes, rounds)
	fmt.Printf("never checkpointed: %s ms of %v\n", fresh, []time.Duration(fresh))
	for i, program := range programs {
		fmt.Printf("%s: %s ms of %v\n", program, longest[i], []time.Duration(longest[i]))
	}
	if len(programs) == 2 {
		fmt.Printf("before/now: %.1f\n", quotient(longest[1], longest[0]))
	}
}

// slowestRead waits for the touchers and returns their longest read.
func slowestRead(b *testing.B, touchers *lab.Touchers) time.Duration {
	b.Helper()
	text, _, _ := strings.Cut(touchers.Check(b), " ")
	took, err := time.ParseDuration(text)
	if err != nil {
		b.Fatal(err)
	}
	return took
}
