package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// racer is a service that touches an automount with its first instructions after the
// resume. Until then it polls for a file that appears between checkpoint and restore,
// without starting a process: so it does not sleep when it is dumped.
const racer = `[Service]
ExecStart=/bin/sh -c 'until [ -e /restored ]; do :; done; read -r line <%s/marker; echo "$line" >/raced-%d'
`

// TestProcessRunsIntoStaleMount has processes access stale mounts between resume and
// repair. They may not block the repair, nor stay stuck after it.
func TestProcessRunsIntoStaleMount(t *testing.T) {
	requireHook(t)
	targets := []string{lab.Idle, lab.Direct, lab.Direct2}
	files := make(map[string]string)
	var units []string
	for i, path := range targets {
		unit := fmt.Sprintf("racer-%d.service", i)
		files["/etc/systemd/system/"+unit] = fmt.Sprintf(racer, path, i)
		units = append(units, unit)
	}
	c := lab.Start(t, lab.Options{Files: files})
	c.Populate(t)
	c.Run(t, append([]string{"systemctl", "start"}, units...)...)
	s := &snapshot{Checkpoint: c.Checkpoint(t)}
	root := filepath.Join(c.Bundle, "rootfs")

	r := restoreWithHook(t, s, lab.RestoreOptions{Before: func() {
		if err := os.WriteFile(filepath.Join(root, "restored"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}})
	if r.Took > 9*time.Second {
		t.Errorf("the restore took %s: the repair was blocked", r.Took)
	}
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
	for i, path := range targets {
		if text := awaitText(t, filepath.Join(root, fmt.Sprintf("raced-%d", i))); text != path {
			t.Errorf("the process that touched %s read %q", path, text)
		}
	}
}
