package hook

import (
	"os"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
)

func TestActionEvent(t *testing.T) {
	for name, test := range map[string]struct {
		action, pid string
		want        Event // without CRIU
		ok          bool
	}{
		"reserve":         {"pre-restore", "", Event{Moment: Reserve, ImageDir: "/images"}, true},
		"reserve, a pid":  {"pre-restore", "42", Event{Moment: Reserve, ImageDir: "/images"}, true},
		"prepare":         {"post-setup-namespaces", "42", Event{Moment: Prepare, PID: 42, ImageDir: "/images"}, true},
		"prepare, no pid": {"post-setup-namespaces", "", Event{}, false},
		"preserve":        {"pre-resume", "42", Event{Moment: Preserve, PID: 42, ImageDir: "/images"}, true},
		"repair":          {"post-resume", "42", Event{Moment: Repair, PID: 42}, true},
		"no pid":          {"pre-resume", "", Event{}, false},
		"pid 0":           {"post-resume", "0", Event{}, false},
		"negative pid":    {"post-resume", "-1", Event{}, false},
		"no number":       {"post-resume", "42x", Event{}, false},
		"another stage":   {"post-dump", "42", Event{}, false},
		"no stage":        {"", "42", Event{}, false},
		"newline in name": {"post-resume\n", "42", Event{}, false},
	} {
		env := map[string]string{stage.EnvAction: test.action, EnvInitPID: test.pid, EnvImageDir: "/images"}
		e, err := ActionEvent(func(k string) string { return env[k] })
		if (err == nil) != test.ok {
			t.Errorf("%s: %+v, %v", name, e, err)
			continue
		}
		if err == nil && (e.Moment != test.want.Moment || e.PID != test.want.PID || e.ImageDir != test.want.ImageDir ||
			e.Trigger != "criu:"+test.action || e.CRIU != os.Getppid() || e.Everyone) {
			t.Errorf("%s: %+v, want %+v", name, e, test.want)
		}
	}
	for action, want := range map[string]bool{
		"pre-restore": true, "post-setup-namespaces": true, "pre-resume": true, "post-resume": true, "pre-dump": false, "post-dump": false, "network-lock": false,
		"network-unlock": false, "setup-namespaces": false, "post-restore": false, "orphan-pts-master": false, "": false,
	} {
		if stage.Ours(action) != want {
			t.Errorf("%q: %v", action, !want)
		}
	}
}
