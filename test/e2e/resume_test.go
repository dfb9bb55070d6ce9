package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestTouchEverythingAtResume has processes touch every automount of systemd with their
// first instructions after the resume. Each reads its content.
func TestTouchEverythingAtResume(t *testing.T) {
	requireHook(t)
	targets := []lab.Access{
		{Path: lab.Idle + "/" + lab.Marker, Content: lab.Idle},
		{Path: lab.Blank + "/" + lab.Marker, Content: lab.Blank},
		{Path: lab.Binfmt + "/status", Content: "enabled"},
		{Path: lab.Covered + "/" + lab.Marker, Content: lab.Covered},
		{Path: lab.Stacked + "/upper", Content: "upper"},
	}
	files := make(map[string]string)
	start := []string{"systemctl", "start"}
	for i, a := range targets {
		unit := fmt.Sprintf("toucher-%d.service", i)
		// As in the racer, the shell starts no process until the file appears.
		files["/etc/systemd/system/"+unit] = fmt.Sprintf(`[Service]
ExecStart=/bin/sh -c 'until [ -e /restored ]; do :; done; read -r line <"%s" && echo "$line" >/touched-%d || echo failed >/touched-%[2]d'
`, a.Path, i)
		start = append(start, unit)
	}
	c := lab.Start(t, lab.Options{Files: files})
	c.Populate(t)
	c.Run(t, start...)
	s := &snapshot{Checkpoint: c.Checkpoint(t)}
	root := filepath.Join(c.Bundle, "rootfs")
	r := restoreWithHook(t, s, lab.RestoreOptions{Before: func() {
		if err := os.WriteFile(filepath.Join(root, "restored"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}})
	checkPreserved(t, r)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	for i, a := range targets {
		if text := awaitText(t, filepath.Join(root, fmt.Sprintf("touched-%d", i))); text != a.Content {
			t.Errorf("the process that touched %s got %q, want %q", a.Path, text, a.Content)
		}
	}
}

// TestSlowMountAtResume has a process access an automount whose mount takes some seconds.
// systemd serves it: the restore does not wait for that, and the report names no waiter.
func TestSlowMountAtResume(t *testing.T) {
	requireHook(t)
	const dir = "/etc/systemd/system/"
	c := lab.Start(t, lab.Options{Plain: true, Files: map[string]string{
		dir + "mnt-slow.automount":            "[Automount]\nWhere=/mnt/slow\n",
		dir + "mnt-slow.mount":                "[Unit]\nRequires=slow.service\nAfter=slow.service\n[Mount]\nWhat=tmpfs\nWhere=/mnt/slow\nType=tmpfs\n",
		dir + "slow.service":                  "[Service]\nType=oneshot\nExecStart=/bin/sleep 3\n",
		dir + "multi-user.target.d/slow.conf": "[Unit]\nWants=mnt-slow.automount\n",
		dir + "toucher.service": `[Service]
ExecStart=/bin/sh -c 'until [ -e /restored ]; do :; done; cd /mnt/slow && echo entered >/touched || echo failed >/touched'
`,
	}})
	c.Run(t, "systemctl", "start", "toucher.service")
	c.Settle(t)
	s := checkpointOf(t, c)
	touched, start := filepath.Join(c.Bundle, "rootfs/touched"), filepath.Join(c.Bundle, "rootfs/restored")
	for _, cure := range []string{"preserved", "reexecuted"} {
		t.Run(cure, func(t *testing.T) {
			_ = os.Remove(touched)
			r := restoreTo(t, s, cure, func() {
				if err := os.WriteFile(start, nil, 0o644); err != nil {
					t.Fatal(err)
				}
			})
			if _, err := os.Stat(touched); err == nil {
				t.Error("the process did not wait for the mount, or the restore for the process")
			}
			report := r.ReadReport(t)
			checkCure(t, report, cure)
			if report.Outcome != "repaired" || len(report.Waiting) > 0 {
				t.Errorf("outcome %s, waiting %+v", report.Outcome, report.Waiting)
			}
			if text := awaitText(t, touched); text != "entered" {
				t.Errorf("the process %s", text)
			}
			r.Kill(t) // the next one has the same name
		})
	}
}
