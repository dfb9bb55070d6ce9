package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// withScript restores without an action script and then runs CRIU's own script: if CRIU
// calls it under runc, its nsenter fails, because standard input is closed there. It
// returns the script's run time.
func (r *row) withScript(b *testing.B, checkpoint *lab.Checkpoint, limit time.Duration) time.Duration {
	restored := r.restorePlain(b, checkpoint)
	defer end(b, restored)
	cmd := exec.Command(lab.CRIUScriptFor(b, units(r.size)))
	cmd.Env = append(os.Environ(), "CRTOOLS_SCRIPT_ACTION=post-resume", fmt.Sprintf("CRTOOLS_INIT_PID=%d", restored.PID))
	took, output := run(b, cmd, limit)
	if done := strings.Count(output, " restarted"); done < r.size {
		r.stopped, r.done = true, done
		if took < limit {
			b.Errorf("CRIU's script restarted %d of %d units:\n%s", done, r.size, output)
		}
	} else {
		restored.CheckAnswers(b, lastAccess(r.size))
	}
	r.script.add(took)
	return took
}

// withRestart restores without an action script and makes systemd restart all units in
// one call, which loses the covers of automounts.
func (r *row) withRestart(b *testing.B, checkpoint *lab.Checkpoint) {
	restored := r.restorePlain(b, checkpoint)
	defer end(b, restored)
	cmd := restored.Command(append([]string{"systemctl", "restart"}, units(r.size)...)...)
	took, output := run(b, cmd, time.Minute)
	if output != "" {
		b.Errorf("systemctl restart: %s", output)
	}
	r.restart.add(took)
	restored.CheckAnswers(b, lastAccess(r.size))
}

// run runs a command, and kills its process group at the limit.
func run(b *testing.B, cmd *exec.Cmd, limit time.Duration) (time.Duration, string) {
	b.Helper()
	out, err := os.CreateTemp("", "output")
	if err != nil {
		b.Fatal(err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	timer := time.AfterFunc(limit, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err = cmd.Wait()
	took := time.Since(begin)
	var exit *exec.ExitError
	if timer.Stop() && err != nil && !errors.As(err, &exit) {
		b.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		b.Fatal(err)
	}
	return took, string(text)
}
