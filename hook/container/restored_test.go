package container

import (
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// TestRestored: a process that was only forked counts as restored; one with
// systemd's argument is judged by its oldest child.
func TestRestored(t *testing.T) {
	const forked, executed = "(read x <&3) & ", "sleep 60 & "
	for name, test := range map[string]struct {
		script   string
		reexec   bool   // with the argument of a re-execution
		children []bool // whether each has executed a program
		want     bool
	}{
		"started here":                       {executed + "wait", false, []bool{true}, false},
		"started here, with forks":           {forked + executed + "wait", false, []bool{false, true}, false},
		"executed again, started here":       {executed + "sleep 0.1; " + forked + "wait", true, []bool{true, false}, false},
		"executed again, restored":           {forked + "sleep 0.1; " + executed + "wait", true, []bool{false, true}, true},
		"executed again, no children":        {"read x <&3", true, nil, true},
		"the argument inside of another one": {forked + "wait; : --deserialize=7", false, []bool{false}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := startShell(t, test.script, test.reexec)
			var children []bool
			testenv.Eventually(t, "its children", func() bool {
				children = childrenExecuted(t, p)
				return slices.Equal(children, test.children)
			})
			if got := Restored(p); got != test.want {
				t.Errorf("restored: %v, want %v; children %v", got, test.want, children)
			}
			pids, err := p.Descendants()
			if err != nil {
				t.Fatal(err)
			}
			for _, pid := range pids[1:] {
				child, err := nsenter.Open(pid)
				if err != nil {
					t.Fatal(err)
				}
				if got := Restored(child); got == child.Executed() {
					t.Errorf("child that has executed a program: %v; restored: %v", child.Executed(), got)
				}
				child.Close()
			}
		})
	}
}

// startShell starts a shell with an empty pipe at descriptor 3.
func startShell(t *testing.T, script string, reexec bool) *nsenter.Process {
	t.Helper()
	args := []string{"-c", script, "systemd"}
	if reexec {
		args = append(args, "--system", "--deserialize=7")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/bash", args...)
	cmd.ExtraFiles = []*os.File{r}
	err = cmd.Start()
	r.Close()
	if err != nil {
		t.Fatal(err)
	}
	testenv.WaitExecuted(t, cmd.Process.Pid)
	p, err := nsenter.Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pids, _ := p.Descendants()
		for _, pid := range pids[min(1, len(pids)):] {
			if child, err := nsenter.Open(pid); err == nil {
				_ = child.Signal(9)
				child.Close()
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		p.Close()
		w.Close()
	})
	return p
}

// childrenExecuted returns, for each child, the oldest first, whether it has executed a
// program.
func childrenExecuted(t *testing.T, p *nsenter.Process) []bool {
	t.Helper()
	pids, err := p.Descendants()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(pids[1:])
	var list []bool
	for _, pid := range pids[1:] {
		if child, err := nsenter.Open(pid); err == nil {
			list = append(list, child.Executed())
			child.Close()
		}
	}
	return list
}
