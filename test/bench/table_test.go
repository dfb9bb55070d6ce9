package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// series are the measurements of one quantity.
type series []time.Duration

func (s *series) add(d time.Duration) { *s = append(*s, d) }

// median returns the median, 0 for an empty series.
func (s series) median() time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

func (s series) String() string {
	if len(s) == 0 {
		return "-"
	}
	return milliseconds(s.median())
}

// withLeast is the median and the least.
func (s series) withLeast() string {
	if len(s) == 0 {
		return "-"
	}
	return s.String() + " (" + milliseconds(slices.Min(s)) + ")"
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }

func printTable(rows []row) {
	fmt.Print(`
Milliseconds, medians. Reserve, prepare, preserve and repair: how long CRIU waits for
the program at pre-restore, post-setup-namespaces, pre-resume and post-resume, its start included; other: at
the stages where it has nothing to do; added: the sum of all. Command: restored
without it, then "repair PID". Script: CRIU's own, with our units,
run by hand after the restore. Restart: one "systemctl restart" of all units.

`)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "automounts\truns\treserve\tprepare\tpreserve\trepair\tother\tadded\ta mount\tcommand\tscript\tscript/added\trestart\trestart/added\trestore without\twith\t")
	for _, r := range rows {
		script, ratio := r.script.String(), fmt.Sprintf("%.0f", quotient(r.script, r.added))
		if r.stopped {
			script, ratio = ">"+script, ">"+ratio
		}
		fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.1f\t%s\t%s\t\n", r.size, len(r.added),
			r.reserve, r.prepare, r.preserve, r.repair, r.others, r.added, milliseconds(r.added.median()/time.Duration(r.size)), r.command,
			script, ratio, r.restart, quotient(r.restart, r.added), r.plain, r.hook)
	}
	w.Flush()
	for _, r := range rows {
		if r.stopped {
			fmt.Printf("\nCRIU's script was stopped when it had done %d of %d units.", r.done, r.size)
		}
	}
	fmt.Println()
}

func quotient(a, b series) float64 { return float64(a.median()) / float64(b.median()) }

// machine describes the machine of the measurement.
func machine() string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	model := runtime.GOARCH
	for line := range strings.Lines(string(cpuinfo)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	out, _ := exec.Command("criu", "--version").Output()
	version, _, _ := strings.Cut(string(out), "\n")
	return fmt.Sprintf("Linux %s, %d processors (%s), load %s; criu %s; container: Debian 12, systemd 252, under runc",
		strings.TrimSpace(string(kernel)), runtime.NumCPU(), model, strings.TrimSpace(string(load)), version)
}
