package hook

import (
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestReadState(t *testing.T) {
	const good = `{"ociVersion":"1.2.0","id":"c1","status":"stopped","pid":42,"bundle":"/b","annotations":{"a":"`
	for name, test := range map[string]struct {
		in  io.Reader
		say string // "" for success
	}{
		"good":            {strings.NewReader(good + `"}}`), ""},
		"one byte":        {iotest.OneByteReader(strings.NewReader(good + `"}}`)), ""},
		"largest":         {strings.NewReader(good + strings.Repeat("x", maxState-len(good)-3) + `"}}`), ""},
		"too large":       {strings.NewReader(good + strings.Repeat("x", maxState-len(good)-2) + `"}}`), "longer than"},
		"10 MB":           {strings.NewReader(strings.Repeat("x", 10<<20)), "longer than"},
		"empty":           {strings.NewReader(""), "empty"},
		"cut":             {strings.NewReader(good), "not the JSON"},
		"no JSON":         {strings.NewReader("state"), "not the JSON"},
		"a list":          {strings.NewReader("[]"), "not the JSON"},
		"a pid too large": {strings.NewReader(`{"pid":99999999999999999999}`), "not the JSON"},
		"unreadable":      {iotest.ErrReader(errors.New("gone")), "gone"},
	} {
		state, err := ReadState(test.in)
		switch {
		case test.say == "" && (err != nil || state.ID != "c1" || state.Pid != 42 || state.Status != specs.StateStopped):
			t.Errorf("%s: %+v, %v", name, state, err)
		case test.say != "" && (err == nil || !strings.Contains(err.Error(), test.say) || len(err.Error()) > 300):
			t.Errorf("%s: %v, want %q", name, err, test.say)
		}
	}
}

func TestStageEvent(t *testing.T) {
	state := func(pid int, status specs.ContainerState) *specs.State {
		return &specs.State{ID: "c1", Pid: pid, Status: status}
	}
	for _, hookStage := range stages {
		if !IsStage(hookStage) {
			t.Errorf("%s is no stage", hookStage)
		}
		for _, test := range []struct {
			state *specs.State
			ours  bool
			bad   bool
		}{
			{state(42, specs.StateRunning), hookStage == "poststart", false},
			{state(42, specs.StateStopped), hookStage == "poststart" || hookStage == "createRuntime", false},
			{state(42, specs.StateCreating), hookStage == "poststart", false},
			{state(0, specs.StateRunning), false, hookStage == "poststart"},
			{state(-1, specs.StateStopped), false, hookStage == "poststart"},
		} {
			e, ours, err := StageEvent(hookStage, test.state)
			if ours != test.ours || (err != nil) != test.bad {
				t.Errorf("%s, %+v: %+v, %v, %v", hookStage, test.state, e, ours, err)
			}
			want := stage.Repair
			if hookStage == "createRuntime" {
				want = stage.Prepare
			}
			if ours && (e.Stage != want || e.PID != 42 || e.ContainerID != "c1" || e.Trigger != "oci:"+hookStage || e.CRIU != 0 || e.LeaveWatcher != (want == stage.Prepare)) {
				t.Errorf("%s: %+v", hookStage, e)
			}
		}
	}
	for _, word := range []string{"", "inspect", "Poststart", "poststart "} {
		if IsStage(word) {
			t.Errorf("%q is a stage", word)
		}
	}
}

// TestIsFreshStart: with real command lines.
func TestIsFreshStart(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want bool
	}{
		"runc create":         {[]string{"runc", "--root", "/r", "create", "--bundle", "/b", "c1"}, true},
		"crun by path":        {[]string{"/usr/bin/crun", "start", "c1"}, true},
		"runc run":            {[]string{"runc", "run", "c1"}, true},
		"runc init":           {[]string{"runc:[2:INIT]", "create"}, true},
		"runc restore":        {[]string{"runc", "restore", "-d", "create"}, false},
		"a person":            {[]string{"bash", "create"}, false},
		"a runtime, no words": {[]string{"runc"}, false},
		"a similar name":      {[]string{"runcx", "create"}, false},
	} {
		c := startAs(t, test.args...)
		if got := isFreshStart(c.PID()); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if isFreshStart(1<<22 + 1) {
		t.Error("without a parent process")
	}
}

// startAs starts a process with the given command line.
func startAs(t *testing.T, args ...string) *testenv.Child {
	t.Helper()
	// A shell that waits for its input takes any words as arguments.
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	return testenv.StartPrepared(t, &exec.Cmd{Path: sh, Args: append([]string{args[0], "-s", "--"}, args[1:]...)})
}
