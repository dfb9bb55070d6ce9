package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"text/tabwriter"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// noopRounds is the number of measurements of each call.
const noopRounds = 60

// BenchmarkNoop measures the calls at which there is nothing to do.
func BenchmarkNoop(b *testing.B) {
	lab.RequireNode(b)
	empty, script, called := tool(b, "bench-empty"), lab.CRIUScript(b), actionScript(b)
	fmt.Print("\n" + machine() + "\nCalls with nothing to do: microseconds, medians; system calls with those of children.\n\n")

	foreign := "CRTOOLS_SCRIPT_ACTION=network-unlock"
	state := func(status string) string {
		return `{"ociVersion":"1.2.0","id":"c1","status":"` + status + `","pid":1,"bundle":"/b","annotations":{"a":"b"}}`
	}
	printRace(b, 0, "at every stage of CRIU without work, and at every start of a container", []contestant{
		{"empty Go program", func() *exec.Cmd { return withEnv(empty, nil, "") }},
		{"action script, foreign action", func() *exec.Cmd { return withEnv(called, nil, "", foreign) }},
		{"foreign action", func() *exec.Cmd { return withEnv(lab.Hook(), nil, "", foreign) }},
		{"hook, fresh start", func() *exec.Cmd { return withEnv(lab.Hook(), []string{"createRuntime"}, state("creating")) }},
		{"hook, other stage", func() *exec.Cmd { return withEnv(lab.Hook(), []string{"poststop"}, state("stopped")) }},
		{"CRIU's script, foreign action", func() *exec.Cmd { return withEnv(script, nil, "", foreign) }},
	})

	restored, stage := withoutAutomounts(b)
	defer end(b, restored)
	list := []contestant{{"empty Go program", func() *exec.Cmd { return withEnv(empty, nil, "") }}}
	for _, name := range workStages {
		list = append(list,
			contestant{name, func() *exec.Cmd { return withEnv(lab.Hook(), nil, "", stage(name)...) }},
			contestant{name + ", by the action script", func() *exec.Cmd { return withEnv(called, nil, "", stage(name)...) }})
	}
	list = append(list, contestant{"CRIU's script, post-resume", func() *exec.Cmd { return withEnv(script, nil, "", stage("post-resume")...) }})
	printRace(b, len(list)-1, "on a restored container without automounts", list)
}

// actionScript returns the installed action script.
func actionScript(b testing.TB) string {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(lab.Checkout(), "manifests/criu/action-script.sh"))
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(lab.Scratch(b, "bench-script"), "action-script")
	if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte("@PROGRAM@"), []byte(lab.Hook())), 0o755); err != nil {
		b.Fatal(err)
	}
	return path
}

// withoutAutomounts restores a container without automounts, and returns the environment
// of an action script at a stage of the restore.
func withoutAutomounts(b testing.TB) (restored *lab.Restored, stage func(name string) []string) {
	b.Helper()
	c := lab.Start(b, lab.Options{Plain: true})
	if have := lab.Autofs(b, c.PID); len(have) > 0 {
		b.Fatalf("the container has automounts: %v", have)
	}
	c.Settle(b)
	checkpoint := c.Checkpoint(b)
	checkpoint.InstallGroupsOnly(b)
	restored = checkpoint.Restore(b, lab.RestoreOptions{})
	return restored, func(name string) []string {
		return []string{
			"CRTOOLS_SCRIPT_ACTION=" + name, "CRTOOLS_INIT_PID=" + strconv.Itoa(restored.PID),
			"CRTOOLS_IMAGE_DIR=" + checkpoint.Images,
		}
	}
}

// printRace prints one table; ratios are to the first contestant, and to the
// one with the index against, if that is not 0.
func printRace(b testing.TB, against int, title string, list []contestant) {
	b.Helper()
	costs := race(b, noopRounds, list)
	for i := range costs {
		costs[i].calls = count(b, list[i].make())
	}
	fmt.Println(title)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\twall\tCPU\twall/empty\tCPU/empty\tsystem calls\tpage faults\t")
	if against > 0 {
		fmt.Fprint(w, "script's wall/hook's\t")
	}
	fmt.Fprintln(w)
	for _, c := range costs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t%.2f\t%d\t%d\t", c.name, microseconds(c.wall), microseconds(c.cpu),
			quotient(c.wall, costs[0].wall), quotient(c.cpu, costs[0].cpu), c.calls, c.faults)
		if against > 0 {
			fmt.Fprintf(w, "%.1f\t", quotient(costs[against].wall, c.wall))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	fmt.Println()
}
