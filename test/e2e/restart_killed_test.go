package e2e

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestKilledWhileSystemdRestarts kills the program after it has requested the restart of
// a unit, which waits for a service that stops slowly. The next run starts at once, when
// the mounts do not show the restart yet.
func TestKilledWhileSystemdRestarts(t *testing.T) {
	requireHook(t)
	const dir = "/etc/systemd/system/"
	automount := lab.UnitName(lab.Stacked, "automount")
	s := take(t, lab.Options{Files: map[string]string{
		dir + "slow.service": "[Unit]\nRequires=" + automount + "\nAfter=" + automount + "\n" +
			"[Service]\nExecStart=sleep infinity\nExecStop=sh -c 'until [ -e /stop ]; do sleep 0.02; done'\n",
		dir + "multi-user.target.d/slow.conf": "[Unit]\nWants=slow.service\n",
	}})
	r := restoreStale(t, s)
	before := crashCase{}.lines(r.Forest(t))

	cmd := exec.Command(lab.Hook(), "repair", strconv.Itoa(r.PID), "--strategy", "restart")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	jobs := ""
	for end := time.Now().Add(lab.AnswerLimit); !strings.Contains(jobs, automount) && time.Now().Before(end); {
		jobs = r.Run(t, "systemctl", "list-jobs", "--no-legend")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	t.Logf("killed with these jobs:\n%s", jobs)
	if !strings.Contains(jobs, automount) {
		t.Fatal("its restart was never a job")
	}
	if now := r.Run(t, "systemctl", "list-jobs", "--no-legend"); !strings.Contains(now, automount) {
		t.Fatal("the job has finished, so the test proves nothing")
	}
	time.AfterFunc(500*time.Millisecond, func() { r.Try(t, lab.AnswerLimit, "touch", "/stop") })
	result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--strategy", "reexec", "--json")
	t.Logf("the next run, exit status %d, %s:\n%s%s", result.Status, result.Took, result.Stderr, outcomes(lab.ParseReport(t, result.Stdout)))
	if result.Status != 0 {
		t.Errorf("exit status %d", result.Status)
	}
	for end := time.Now().Add(lab.AnswerLimit); jobs != "" && time.Now().Before(end); {
		jobs = r.Run(t, "systemctl", "list-jobs", "--no-legend")
	}
	for _, change := range lab.Changes(before, crashCase{}.lines(r.Forest(t))) {
		t.Errorf("mounts: %s", change)
	}
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	checkUncovered(t, r.Container)
	lab.WaitNoneRunning(t, helperLimit)
	for _, file := range lab.RunFiles(t) {
		if strings.HasPrefix(file, "covers/") || strings.HasSuffix(file, ".renewing") {
			t.Errorf("left: %s", file)
		}
	}
	r.Kill(t)
}
