package freezer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/guard"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// verbs are what the tests' binary does when it is called with one of these
// words: the guard of the package, and runs of the program.
var verbs = map[string]func(args []string) error{
	guard.Verb: guard.Run,
	// freeze-and-leave UNTIL MEMBER... writes the Ref and ends.
	"freeze-and-leave": func(args []string) error {
		until, err := nsenter.Open(number(args[0]))
		if err != nil {
			return err
		}
		f, err := Freeze(context.Background(), Request{Members: numbers(args[1:]), Until: until})
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(f.Leave())
	},
	// freeze-and-wait MEMBER... writes the Ref and goes on until it is killed.
	"freeze-and-wait": func(args []string) error {
		f, err := Freeze(context.Background(), Request{Members: numbers(args)})
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(Ref{Guard: f.guard}); err != nil {
			return err
		}
		_, err = os.Stdin.Read(make([]byte, 1)) // the test's end, if not a kill
		return err
	},
	// resume-and-thaw REF
	"resume-and-thaw": func(args []string) error {
		var r Ref
		if err := json.Unmarshal([]byte(args[0]), &r); err != nil {
			return err
		}
		return Resume(r).Thaw()
	},
}

func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

func numbers(list []string) func() ([]int, error) {
	return func() ([]int, error) {
		var found []int
		for _, text := range list {
			found = append(found, number(text))
		}
		return found, nil
	}
}

func words(list ...*testenv.Child) []string {
	var found []string
	for _, pid := range pids(list...) {
		found = append(found, strconv.Itoa(pid))
	}
	return found
}

// another runs a verb in another process to its end and returns what it writes.
func another(t *testing.T, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // the race detector's second at the end
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%q: %v: %s", args, err, exit.Stderr)
		}
		t.Fatalf("%q: %v", args, err)
	}
	return bytes.TrimSpace(out)
}

// TestLeave: one process freezes and ends, another thaws.
func TestLeave(t *testing.T) {
	eachVersion(t, func(t *testing.T, h hierarchy) {
		until := testenv.Start(t, nil)
		a, b := h.spin(t, h.group(t)), h.spin(t, h.group(t))
		ref := another(t, append([]string{"freeze-and-leave"}, words(until, a, b)...)...)
		expectStopped(t, a, b)
		var r Ref
		if err := json.Unmarshal(ref, &r); err != nil || len(r.Groups) != 2 || !slices.Equal(guards(t), []int{r.Guard.PID}) {
			t.Errorf("%s, %v; guards %v", ref, err, guards(t))
		}
		another(t, "resume-and-thaw", string(ref))
		expectRunning(t, a, b)
		expectNoGuard(t)
		// Once more, when everything has long been thawed.
		another(t, "resume-and-thaw", string(ref))
		expectRunning(t, a, b)
	})
}

// soon is how fast the guard must be.
const soon = 2 * time.Second

// TestKilled: the guard thaws when the process that froze is killed.
func TestKilled(t *testing.T) {
	eachVersion(t, func(t *testing.T, h hierarchy) {
		member := h.spin(t, h.group(t))
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		freezing := exec.Command("/proc/self/exe", append([]string{"freeze-and-wait"}, words(member)...)...)
		freezing.Stdout = write
		stdin, err := freezing.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		err = freezing.Start()
		write.Close()
		if err != nil {
			t.Fatal(err)
		}
		_ = read.SetReadDeadline(time.Now().Add(testenv.Patience))
		line, err := bufio.NewReader(read).ReadString('\n')
		if err != nil {
			t.Error(err)
		} else {
			expectStopped(t, member)
		}
		before, begin := used(t, member), time.Now()
		_ = freezing.Process.Kill()
		_ = freezing.Wait()
		testenv.Eventually(t, "a thaw by the guard", func() bool { return used(t, member) > before })
		if d := time.Since(begin); d > soon {
			t.Errorf("thawed %v after the kill (%s)", d, line)
		}
		expectNoGuard(t)
	})
}

// TestUntil: the guard thaws when the process named in the request ends.
func TestUntil(t *testing.T) {
	eachVersion(t, func(t *testing.T, h hierarchy) {
		until, member := testenv.Start(t, nil), h.spin(t, h.group(t))
		f := freeze(t, Request{Members: members(member), Until: open(t, until)})
		expectStopped(t, member)
		before, begin := used(t, member), time.Now()
		until.End()
		testenv.Eventually(t, "a thaw by the guard", func() bool { return used(t, member) > before })
		if d := time.Since(begin); d > soon {
			t.Errorf("thawed %v after the end", d)
		}
		expectThaw(t, f) // and the guard, which has ended, is waited for
	})
}

// TestStopOther: the start time tells a guard from a later process with its
// number, which is not killed.
func TestStopOther(t *testing.T) {
	c := testenv.Start(t, nil)
	p := open(t, c)
	for _, g := range []guard.Ref{{}, {PID: p.PID(), StartTime: p.StartTime() - 1}, {PID: -1}} {
		g.Stop()
	}
	if p.Ended() {
		t.Error("another process was killed")
	}
	guard.Ref{PID: p.PID(), StartTime: p.StartTime()}.Stop()
	if !p.Ended() {
		t.Error("it goes on")
	}
	_ = c.Cmd.Process.Release() // stop has waited for it
}

// TestGuardHasNothingElse: the guard has the process and the groups open, and
// nothing that CRIU or a runtime left open for this process.
func TestGuardHasNothingElse(t *testing.T) {
	h := newHierarchy(t, 2)
	stray, err := unix.Open("/dev/zero", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stray)
	t.Setenv("SECRET", "of CRIU")
	f := freeze(t, Request{Members: members(h.spin(t, h.group(t)))})
	defer expectThaw(t, f)
	proc := filepath.Join("/proc", strconv.Itoa(f.guard.PID))
	names, err := filepath.Glob(proc + "/fd/*")
	if err != nil || len(names) < 5 {
		t.Errorf("%v, %v", names, err)
	}
	for _, name := range names {
		if link, err := os.Readlink(name); err == nil && link == "/dev/zero" {
			t.Errorf("the guard has %s", link)
		}
	}
	if env, err := os.ReadFile(proc + "/environ"); err != nil || len(env) != 0 {
		t.Errorf("environment %q, %v", env, err)
	}
	if cwd, err := os.Readlink(proc + "/cwd"); err != nil || cwd != "/" {
		t.Errorf("working directory %q, %v", cwd, err)
	}
	if sid, err := unix.Getsid(f.guard.PID); err != nil || sid != f.guard.PID {
		t.Errorf("session %d, %v", sid, err)
	}
	testenv.WaitExecuted(t, f.guard.PID)
	if line, err := os.ReadFile(proc + "/cmdline"); err != nil || string(line) != fmt.Sprintf("/proc/self/exe\x00%s\x000\x00", guard.Verb) {
		t.Errorf("command line %q, %v", line, err)
	}
}
