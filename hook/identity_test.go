package hook

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

func TestContainerName(t *testing.T) {
	p := open(t, testenv.Start(t, nil))
	for name, test := range map[string]struct{ id, want string }{
		"as told":   {"c1", "c1"},
		"long":      {strings.Repeat("a", maxID), strings.Repeat("a", maxID)},
		"too long":  {strings.Repeat("a", maxID+1), ""},
		"a path":    {"../../etc/passwd", ""},
		"dots":      {"..", ""},
		"an option": {"-rf", ""},
		"control":   {"a\nb", ""},
		"NUL":       {"a\x00b", ""},
	} {
		got := containerName(Event{ContainerID: test.id}, p)
		if test.want == "" && (!strings.HasPrefix(got, "id-") || !validID(got)) || test.want != "" && got != test.want {
			t.Errorf("%s: %q", name, got)
		}
		if filepath.Base(got) != got || got != containerName(Event{ContainerID: test.id}, p) {
			t.Errorf("%s: %q is no lasting file name", name, got)
		}
	}
	if got := containerName(Event{}, p); !validID(got) {
		t.Errorf("untold: %q", got)
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
		"/":                                                                                                      "",
		"/container":                                                                                             "",
		"/init.scope":                                                                                            "",
		"/my-container":                                                                                          "my-container",
	} {
		if got := idOfGroup(group); got != want {
			t.Errorf("%s: %q, want %q", group, got, want)
		}
	}
}
