package hook

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

func TestActionEvent(t *testing.T) {
	for name, test := range map[string]struct {
		action, pid string
		want        Event // without CRIU
		ok          bool
	}{
		"reserve":         {"pre-restore", "", Event{Stage: stage.Reserve, ImageDir: "/images"}, true},
		"reserve, a pid":  {"pre-restore", "42", Event{Stage: stage.Reserve, ImageDir: "/images"}, true},
		"prepare":         {"post-setup-namespaces", "42", Event{Stage: stage.Prepare, PID: 42, ImageDir: "/images"}, true},
		"prepare, no pid": {"post-setup-namespaces", "", Event{}, false},
		"preserve":        {"pre-resume", "42", Event{Stage: stage.Preserve, PID: 42, ImageDir: "/images"}, true},
		"repair":          {"post-resume", "42", Event{Stage: stage.Repair, PID: 42}, true},
		"no pid":          {"pre-resume", "", Event{}, false},
		"pid 0":           {"post-resume", "0", Event{}, false},
		"negative pid":    {"post-resume", "-1", Event{}, false},
		"no number":       {"post-resume", "42x", Event{}, false},
		"another stage":   {"post-dump", "42", Event{}, false},
		"no stage":        {"", "42", Event{}, false},
		"newline in name": {"post-resume\n", "42", Event{}, false},
	} {
		env := map[string]string{EnvAction: test.action, envInitPID: test.pid, envImageDir: "/images"}
		e, err := ActionEvent(func(k string) string { return env[k] })
		if (err == nil) != test.ok {
			t.Errorf("%s: %+v, %v", name, e, err)
			continue
		}
		if err == nil && (e.Stage != test.want.Stage || e.PID != test.want.PID || e.ImageDir != test.want.ImageDir ||
			e.Trigger != "criu:"+test.action || e.CRIU != os.Getppid() || e.Visitors) {
			t.Errorf("%s: %+v, want %+v", name, e, test.want)
		}
	}
	self := fmt.Sprintf("/proc/%d/fd/", os.Getpid())
	for dir, want := range map[string]int{
		self + "3": os.Getpid(), "/proc/self/fd/3": os.Getppid(), "/proc/0/fd/3": os.Getppid(), "/proc/-1/fd/3": os.Getppid(),
		"/proc/99999999/fd/3": os.Getppid(), strings.TrimSuffix(self, "/"): os.Getppid(), "/images": os.Getppid(), "": os.Getppid(),
		"/proc/1x/fd/3": os.Getppid(), "/proc/../fd/3": os.Getppid(),
	} {
		env := map[string]string{EnvAction: "post-resume", envInitPID: "42", envImageDir: dir}
		if e, err := ActionEvent(func(k string) string { return env[k] }); err != nil || e.CRIU != want {
			t.Errorf("%q: %+v, %v, want CRIU %d", dir, e, err, want)
		}
	}
	for action, want := range map[string]bool{
		"pre-restore": true, "post-setup-namespaces": true, "pre-resume": true, "post-resume": true, "pre-dump": false, "post-dump": false, "network-lock": false,
		"network-unlock": false, "setup-namespaces": false, "post-restore": false, "orphan-pts-master": false, "": false,
	} {
		if IsAction(action) != want {
			t.Errorf("%q: %v", action, !want)
		}
	}
}

// TestHostNamespace: nothing is done for a process that is restored into the host's own
// mount namespace, as a job or a Java program is. Only a command reports an error.
func TestHostNamespace(t *testing.T) {
	testenv.RequireRoot(t)
	child := testenv.Start(t, nil)
	for trigger, quiet := range map[string]bool{"criu:post-resume": true, "oci:poststart": true, "command:repair": false} {
		r := Runner{Directory: t.TempDir(), Warn: func(err error) { t.Errorf("%s: warned of %v", trigger, err) }}
		rep, err := r.Run(t.Context(), Event{Trigger: trigger, Stage: stage.Repair, PID: child.PID(), CRIU: os.Getpid()})
		if (err == nil) != quiet || (rep.Outcome == report.NothingToDo) != quiet {
			t.Errorf("%s: %+v, %v, want it quiet: %v", trigger, rep, err, quiet)
		}
		if entries, err := os.ReadDir(r.Directory); err != nil || len(entries) != 0 {
			t.Errorf("%s: left %v, %v", trigger, entries, err)
		}
	}
	r := Runner{Directory: t.TempDir(), Warn: func(err error) { t.Errorf("pre-resume: warned of %v", err) }}
	if _, err := r.Run(t.Context(), Event{Trigger: "criu:pre-resume", Stage: stage.Preserve, PID: child.PID(), CRIU: os.Getpid(), ImageDir: t.TempDir()}); err != nil {
		t.Errorf("pre-resume: %v", err)
	}
}
