package lab

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TouchLimit is how long a touch may take. A healthy automount needs a few milliseconds;
// the rest is for a busy machine.
var TouchLimit = Limit(3 * time.Second)

// Limit is d, or four times as long with LAB_EMULATED=1: then the processor is emulated,
// some twenty times slower.
func Limit(d time.Duration) time.Duration {
	if os.Getenv("LAB_EMULATED") == "1" {
		return 4 * d
	}
	return d
}

// Touch is the outcome of one access to a path of the container.
type Touch struct {
	Hung    bool   // waited at the limit or did not end for [AnswerLimit] more, and was killed
	Waiting bool   // Hung, and in autofs_wait in the kernel
	Output  string // the file's content, or an error
	Failed  bool   // the command reported an error
	Took    time.Duration
}

func (o Touch) String() string {
	switch {
	case o.Waiting:
		return fmt.Sprintf("hangs (in autofs_wait after %s)", o.Took.Round(time.Millisecond))
	case o.Hung:
		return fmt.Sprintf("hangs (not in autofs_wait, after %s)", o.Took.Round(time.Millisecond))
	case o.Failed:
		return fmt.Sprintf("fails: %s", strings.TrimSpace(o.Output))
	}
	return fmt.Sprintf("answers in %s: %q", o.Took.Round(time.Millisecond), strings.TrimSpace(o.Output))
}

// Touch reads a file inside the container, within a limit.
func (c *Container) Touch(t testing.TB, path string, limit time.Duration) Touch {
	t.Helper()
	return c.Try(t, limit, "cat", path)
}

// Try runs a command inside the container, within a limit.
func (c *Container) Try(t testing.TB, limit time.Duration, args ...string) Touch {
	t.Helper()
	return c.TryAll(t, limit, [][]string{args})[0]
}

// TryAll runs commands inside the container, all at the same time.
func (c *Container) TryAll(t testing.TB, limit time.Duration, commands [][]string) []Touch {
	t.Helper()
	out := make([]Touch, len(commands))
	done := make(chan error)
	for i, args := range commands {
		go func() {
			var err error
			out[i], err = c.attempt(limit, args...)
			done <- err
		}()
	}
	for range commands {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return out
}

func (c *Container) attempt(limit time.Duration, args ...string) (Touch, error) {
	file, err := os.CreateTemp("", "touch")
	if err != nil {
		return Touch{}, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	cmd := c.Command(args...)
	cmd.Stdout, cmd.Stderr = file, file
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return Touch{}, err
	}
	group := cmd.Process.Pid
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var o Touch
	// On a busy machine it may not have come to the mount within the limit.
	for wait := limit; !o.Hung; wait = 10 * time.Millisecond {
		select {
		case err = <-done:
		case <-time.After(wait):
			o.Waiting = groupWaits(group)
			if !o.Waiting && time.Since(started) < limit+AnswerLimit {
				continue
			}
			o.Hung = true
			// autofs_wait is killable (kernel: fs/autofs/waitq.c).
			_ = syscall.Kill(-group, syscall.SIGKILL)
			err = <-done
		}
		break
	}
	o.Took = time.Since(started)
	o.Failed = err != nil && !o.Hung
	text, err := os.ReadFile(file.Name())
	o.Output = string(text)
	return o, err
}
