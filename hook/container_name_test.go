package hook

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

func TestContainerName(t *testing.T) {
	p := testproc.Open(t, testenv.Start(t, nil))
	r := Runner{Directory: t.TempDir()}
	for name, test := range map[string]struct{ id, want string }{
		"as named":  {"c1", "c1"},
		"long":      {strings.Repeat("a", maxID), strings.Repeat("a", maxID)},
		"too long":  {strings.Repeat("a", maxID+1), ""},
		"a path":    {"../../etc/passwd", ""},
		"dots":      {"..", ""},
		"an option": {"-rf", ""},
		"control":   {"a\nb", ""},
		"NUL":       {"a\x00b", ""},
	} {
		got := r.containerName(Event{ContainerID: test.id}, p)
		if test.want == "" && (!strings.HasPrefix(got, "id-") || !validID(got)) || test.want != "" && got != test.want {
			t.Errorf("%s: %q", name, got)
		}
		if filepath.Base(got) != got || got != r.containerName(Event{ContainerID: test.id}, p) {
			t.Errorf("%s: %q is no stable file name", name, got)
		}
	}
	if got := r.containerName(Event{}, p); !validID(got) {
		t.Errorf("without a name: %q", got)
	}
}

func TestIDOfGroup(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for group, want := range map[string]string{
		"/" + id:                                 id,
		"/c1":                                    "c1",
		"/docker/" + id:                          id,
		"/system.slice/docker-" + id + ".scope":  id,
		"/machine.slice/libpod-" + id + ".scope": id,
		"/machine.slice/libpod-" + id + ".scope/container":                                                       id,
		"/machine.slice/libpod-" + id + ".scope/container/init.scope":                                            id,
		"/machine.slice/libpod-" + id + ".scope/init.scope":                                                      id,
		"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-" + id + ".scope": id,
		"/kubepods.slice/kubepods-pod1.slice/crio-" + id + ".scope/init.scope":                                   id,
		"/kubepods/besteffort/pod1/" + id:                                                                        id,
		"/libpod_parent/libpod-" + id:                                                                            id,
		"/machine.slice/libpod-" + id + ".scope/libpod-" + strings.Repeat("f", 64) + ".scope":                    id,
		"/c1/c2":        "c2",
		"/":             "",
		"/container":    "",
		"/init.scope":   "",
		"/my-container": "my-container",
	} {
		if got := idOfGroup(group); got != want {
			t.Errorf("%s: %q, want %q", group, got, want)
		}
	}
}

// TestFreeName: the report of a container does not replace that of another running
// container with the same name.
func TestFreeName(t *testing.T) {
	p := testproc.Open(t, testenv.Start(t, nil))
	other := testenv.Start(t, nil)
	r := Runner{Directory: t.TempDir()}
	name := fileName(idOfGroups(p)) // both are in the group of the tests
	for text, want := range map[string]string{
		"":                                      name,
		"{":                                     name,
		fmt.Sprintf(`{"pid": %d}`, p.PID()):     name,
		fmt.Sprintf(`{"pid": %d}`, other.PID()): fmt.Sprintf("pid-%d", p.PID()),
		`{"pid": 4194305}`:                      name,
	} {
		if err := r.journal().SaveReport(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := r.freeName(name, p); got != want {
			t.Errorf("beside %q: %q, want %q", text, got, want)
		}
	}
}
