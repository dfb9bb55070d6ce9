package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// crowded is a restore among many of something.
type crowded struct {
	name       string
	make       func() *lab.Checkpoint // nil for that of the first one
	crowd      func() (end func())    // nil for none on the machine
	checkpoint *lab.Checkpoint
	measured   map[string]*stageSeries
}

// BenchmarkGrowth measures the stages of a restore with many mounts, processes, mount
// namespaces and free device numbers, interleaved with one without. GROWTH is a part of the
// names of those to measure. BEFORE=/path is another build of the program, measured in the
// same rounds.
func BenchmarkGrowth(b *testing.B) {
	lab.RequireNode(b)
	const size, rounds = 4, 5
	lean := tool(b, "bench-lean")
	cases := growthCases(b, lean, size)
	for range rounds {
		for _, c := range cases {
			end := func() {}
			if c.crowd != nil {
				end = c.crowd()
			}
			for _, program := range builds() {
				c.measured[program].add(b, c.checkpoint, program, size)
			}
			end()
		}
	}
	fmt.Printf("\n%s\nThe cost of the program in a restore with %d automounts among many other things: milliseconds, medians of %d restores.\n\n",
		machine(), size, rounds)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\t"+strings.Join(workStages, "\t")+"\tother stages\tadded\tadded/alone\tbuild\t")
	for _, c := range cases {
		for _, program := range builds() {
			m := c.measured[program]
			fmt.Fprintf(w, "%s\t", c.name)
			for _, stage := range workStages {
				fmt.Fprintf(w, "%s\t", m.stages[stage])
			}
			fmt.Fprintf(w, "%s\t%s\t%.2f\t%s\t\n", m.others, m.added, quotient(m.added, cases[0].measured[program].added), program)
		}
	}
	w.Flush()
}

// growthCases returns the restores to measure, the one without a crowd first.
func growthCases(b *testing.B, lean string, size int) []*crowded {
	b.Helper()
	sleepers := func(args ...string) func() (end func()) {
		return func() func() { _, end := startHelper(b, lean, append([]string{"sleep"}, args...)...); return end }
	}
	cases := []*crowded{
		{name: "alone", make: func() *lab.Checkpoint { return checkpointOf(b, size) }},
		{name: "1,000 other mounts in it", make: func() *lab.Checkpoint { return checkpointOfMounts(b, lean, size, 1_000) }},
		{name: "10,000 mounts on the machine", crowd: func() func() { return crowdOfMounts(b, 10_000) }},
		{name: "5,000 processes on the machine", crowd: sleepers("5000")},
		{name: "100 other containers", crowd: sleepers("100", "own")},
		{name: "50 mount namespaces in it", make: func() *lab.Checkpoint { return checkpointOfFiles(b, size, namespaces(50)) }},
		{name: "3,000 lower free numbers", make: func() *lab.Checkpoint {
			held := lab.HoldNumbers(b, 3_000)
			defer held.Release()
			return checkpointOf(b, size)
		}},
	}
	if pattern := setting("GROWTH", ""); pattern != "" {
		cases = slices.DeleteFunc(cases, func(c *crowded) bool { return c != cases[0] && !strings.Contains(c.name, pattern) })
	}
	for _, c := range cases {
		c.checkpoint, c.measured = cases[0].checkpoint, newStageSeries()
		if c.make != nil {
			c.checkpoint = c.make()
		}
	}
	return cases
}

// checkpointOfMounts is checkpointOf for a container with bind mounts.
func checkpointOfMounts(b testing.TB, lean string, size, count int) *lab.Checkpoint {
	b.Helper()
	c := startAutomounts(b, size, nil)
	out, err := exec.Command(lean, "binds", strconv.Itoa(c.PID), strconv.Itoa(count), "/srv").CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	settle(b, c)
	return c.Checkpoint(b)
}

// crowdOfMounts makes bind mounts, which need no device numbers, in the node.
func crowdOfMounts(b testing.TB, count int) (end func()) {
	b.Helper()
	dir := b.TempDir()
	parts := mountCPUGroups(b, filepath.Join(dir, "cpu"))
	for i := range count {
		path := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(path, 0o700); err != nil {
			b.Fatal(err)
		}
		if err := unix.Mount(dir, path, "", unix.MS_BIND, ""); err != nil {
			b.Fatal(err)
		}
		parts = append(parts, path)
	}
	return func() {
		for _, path := range parts {
			_ = unix.Unmount(path, unix.MNT_DETACH)
		}
	}
}

// mountCPUGroups mounts the hierarchy of the cpu controller, if that is of version 1. The
// runtime of Go looks for it in the mount table: other machines have it mounted before
// anything else, but the node has only version 2.
func mountCPUGroups(b testing.TB, path string) (mounted []string) {
	b.Helper()
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		b.Fatal(err)
	}
	if !strings.Contains(string(groups), ":cpu:") && !strings.Contains(string(groups), ":cpu,") {
		return nil
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		b.Fatal(err)
	}
	if err := unix.Mount("cgroup", path, "cgroup", 0, "cpu"); err != nil {
		b.Fatal(err)
	}
	return []string{path}
}

// namespaces are services with their own mount namespaces.
func namespaces(count int) map[string]string {
	const dir = "/etc/systemd/system/"
	files := map[string]string{}
	var names []string
	for i := range count {
		name := fmt.Sprintf("apart-%02d.service", i)
		names = append(names, name)
		files[dir+name] = "[Service]\nPrivateMounts=yes\nExecStart=/bin/sleep infinity\n"
	}
	files[dir+"multi-user.target.d/apart.conf"] = "[Unit]\nWants=" + strings.Join(names, " ") + "\n"
	return files
}
