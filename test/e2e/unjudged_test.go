package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestSlowServer has a waiter on a healthy automount of a container that was not
// restored. The mount cannot be opened then: its state is unknown, and it is not changed.
func TestSlowServer(t *testing.T) {
	requireHook(t)
	const answer = "/answer" // the server waits for this file
	c := lab.Start(t, lab.Options{Files: map[string]string{
		"/etc/systemd/system/slow.service":                                        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'until [ -e " + answer + " ]; do sleep 0.02; done'\n",
		"/etc/systemd/system/" + lab.UnitName(lab.Idle, "mount") + ".d/slow.conf": "[Unit]\nRequires=slow.service\nAfter=slow.service\n",
	}})
	c.Populate(t)
	before := c.Units(t)
	access := lab.Access{Path: lab.Idle + "/" + lab.Marker, Content: lab.Idle, About: "behind a slow server"}
	done := make(chan lab.Touch, 1)
	go func() { done <- c.TouchAccesses(t, []lab.Access{access}, watcherLimit)[0] }()
	waitUntil(t, "a process waits", func() bool { return len(c.Waiters(t)) > 0 })
	waiting := c.Units(t)
	for _, command := range []string{"inspect", "repair"} {
		result := lab.RunHook(t, nil, nil, command, strconv.Itoa(c.PID), "--json")
		report := lab.ParseReport(t, result.Stdout)
		for _, m := range report.Mounts {
			want := "healthy"
			if m.Path == lab.Idle {
				want = "unrepaired"
				if !m.Unjudged || !strings.HasPrefix(m.Reason, "cannot be judged now: ") {
					t.Errorf("%s: %s: %s", command, m.Path, m.Reason)
				}
			}
			if m.Outcome != want {
				t.Errorf("%s: %s: %s (%s), want %s", command, m.Path, m.Outcome, m.Reason, want)
			}
		}
	}
	for _, change := range changedUnits(waiting, c.Units(t)) {
		t.Error(change)
	}
	c.Run(t, "touch", answer)
	if o := <-done; !access.Answers(o) {
		t.Errorf("%s: %s; want %q", access.Path, o, access.Content)
	}
	unit := lab.UnitName(lab.Idle, "automount")
	if a, b := c.Units(t)[unit].InvocationID, before[unit].InvocationID; a != b {
		t.Errorf("%s: invocation %s, before %s", unit, a, b)
	}
	if report := runOn(t, c, "repair"); report.Outcome != "nothing-to-do" {
		t.Errorf("with the server's answer: %s\n%s", report.Outcome, outcomes(report))
	}
}

// TestScriptWithoutExec has an action script that calls the program without exec: the
// program's parent is that shell, another one at each stage.
func TestScriptWithoutExec(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	for name, script := range map[string]string{
		"preserved": lab.Hook() + "\n",
		// The journal is lost before the repair: preserved mounts are recognized.
		"healthy": `[ "$CRTOOLS_SCRIPT_ACTION" = post-resume ] && rm -rf /run/autofs-restore-hook/restores` + "\n" + lab.Hook() + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(lab.Scratch(t, "scripts"), "without-exec-"+name)
			if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"exit 0\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			lab.InstallActionScript(t, path)
			r := s.Restore(t, lab.RestoreOptions{})
			defer r.Kill(t) // the next one has the same name
			report := r.ReadReport(t)
			checkReport(t, report, r)
			checkCure(t, report, name)
			checkUnits(t, s, r)
			r.CheckAnswers(t, lab.Accesses)
			checkNoWaiters(t, r.Container)
		})
	}
}

// TestHostNamespace restores a process without its own mount namespace, as jobs and Java
// programs are. There is nothing to do, also with the option strict.
func TestHostNamespace(t *testing.T) {
	requireHook(t)
	const config = "/etc/autofs-restore-hook.conf"
	if err := os.WriteFile(config, []byte("strict = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(config) })
	scratch := lab.Scratch(t, "job")
	script := filepath.Join(scratch, "script")
	text := "#!/bin/sh\n" + lab.Hook() + " 2>>" + scratch + "/log\necho $CRTOOLS_SCRIPT_ACTION $? >>" + scratch + "/status\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	lab.InstallActionScript(t, script)
	job := lab.StartJob(t, scratch)
	job.Restore(t)
	status := readFile(t, filepath.Join(scratch, "status"))
	for _, line := range []string{"pre-restore 0\n", "pre-resume 0\n", "post-resume 0\n"} {
		if !strings.Contains(status, line) {
			t.Errorf("no %q in %q", line, status)
		}
	}
	for line := range strings.Lines(status) {
		if !strings.HasSuffix(line, " 0\n") {
			t.Errorf("exit status: %s", line)
		}
	}
	output := readFile(t, filepath.Join(scratch, "log"))
	t.Logf("the program output:\n%s", output)
	if strings.Contains(output, "level=error") || strings.Contains(output, "level=warning") {
		t.Errorf("it logged a warning:\n%s", output)
	}
	if result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(job.PID)); result.Status != 1 {
		t.Errorf("repair: exit status %d, want 1: %s", result.Status, result.Stderr)
	}
}
