package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Configuration files of CRIU: every CRIU reads the first, one that runc started
// the second too.
const (
	defaultConf = "/etc/criu/default.conf"
	runcConf    = "/etc/criu/runc.conf"
)

// configure makes the program the action script of these configuration files,
// and of no other, until the test ends.
func configure(t *testing.T, files ...string) {
	t.Helper()
	lab.InstallActionScript(t, "")
	for _, file := range files {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("action-script "+lab.Hook()+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(file) })
	}
}

// calls counts how often CRIU called the program at a stage.
func calls(r *lab.Restored, stage string) int {
	return strings.Count(r.Log, ": criu:"+stage+" of process")
}

// TestChannels makes CRIU call the program once, twice and three times at each stage
// (CRIU 3.19 to 4.1.1 parses the file that runc names twice). The repair is done once.
func TestChannels(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	for name, test := range map[string]struct {
		files []string
		calls int
	}{
		"default.conf": {[]string{defaultConf}, 1},
		"runc.conf":    {[]string{runcConf}, 2},
		"both":         {[]string{defaultConf, runcConf}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			configure(t, test.files...)
			r := s.Restore(t, lab.RestoreOptions{})
			t.Logf("restored in %s", r.Took)
			for _, stage := range []string{"pre-resume", "post-resume"} {
				if n := calls(r, stage); n != test.calls {
					t.Errorf("CRIU called the program %d times at %s, want %d:\n%s", n, stage, test.calls, hookLines(r.Log))
				}
			}
			checkRepairedOnce(t, r, test.calls)
			checkWorks(t, s, r)
		})
	}
}

// checkRepairedOnce checks that only the first call at post-resume repairs.
func checkRepairedOnce(t *testing.T, r *lab.Restored, calls int) {
	t.Helper()
	repaired, repeated := strings.Count(r.Log, " automounts repaired in "), strings.Count(r.Log, ", done by an earlier call: ")
	if repaired != 1 || repeated != calls-1 {
		t.Errorf("%d calls repaired and %d left it to an earlier call, want 1 and %d:\n%s", repaired, repeated, calls-1, hookLines(r.Log))
	}
}

// TestEveryChannel uses all channels at once: two configuration files, and a container
// with OCI hooks.
func TestEveryChannel(t *testing.T) {
	requireHook(t)
	lab.InstallActionScript(t, "")
	options := withHook()
	options.Hooks.Poststart = []specs.Hook{options.Hooks.CreateRuntime[0]}
	options.Hooks.Poststart[0].Args = []string{"autofs-restore-hook", "poststart"}
	s := take(t, options)
	configure(t, defaultConf, runcConf)
	r := s.Restore(t, lab.RestoreOptions{})
	lab.WaitNoneRunning(t, watcherLimit)
	if trigger := r.ReadReport(t).Trigger; trigger != "criu:post-resume" {
		t.Errorf("report: by %s, want it by CRIU's action script", trigger)
	}
	checkWorks(t, s, r)
}

// TestPoststartByHand passes the program the state of a container that was restored
// without it, as a person or a future runtime may. The second call has nothing to do.
func TestPoststartByHand(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	r := restoreStale(t, s)
	state, err := json.Marshal(specs.State{Version: "1.0.2", ID: r.ID, Status: specs.StateRunning, Pid: r.PID, Bundle: r.Bundle})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(lab.Scratch(t, r.ID+"-state"), "state.json")
	if err := os.WriteFile(file, state, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{" automounts repaired in ", ": nothing to do in "} {
		result := lab.RunHook(t, []byte(readFile(t, file)), nil, "poststart")
		if result.Status != 0 || !strings.Contains(result.Stderr, want) {
			t.Errorf("poststart: exit status %d, want %q: %s", result.Status, want, result.Stderr)
		}
		t.Logf("poststart took %s", result.Took)
	}
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkUncovered(t, r.Container)
}

// checkWorks checks that the automounts of a container work and its units are unchanged.
func checkWorks(t *testing.T, s *snapshot, r *lab.Restored) {
	t.Helper()
	checkUnits(t, s, r)
	checkPreserved(t, r)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkUncovered(t, r.Container)
}
