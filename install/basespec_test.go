package install

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

// TestBaseSpec has a cgroup namespace in the base specification where control groups
// are of version 2, once.
func TestBaseSpec(t *testing.T) {
	const own = `{"type": "cgroup"}`
	for name, test := range map[string]struct {
		groups     string // a file in /sys/fs/cgroup
		namespaces string
		want       int
	}{
		"version 2":     {"cgroup.controllers", `{"type": "mount"}`, 2},
		"version 1":     {"tasks", `{"type": "mount"}`, 1},
		"not mounted":   {"", `{"type": "mount"}`, 1},
		"has it":        {"cgroup.controllers", own, 1},
		"has no others": {"cgroup.controllers", "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			root := machine(t, version4, nil)
			script := "cd " + root + "; mkdir -p etc/containerd sys/fs/cgroup; cp usr/sbin/criu usr/bin/ctr\n" +
				`echo '{"ociVersion": "1", "linux": {"namespaces": [` + test.namespaces + `]}}' >usr/bin/ctr.out` + "\n"
			if test.groups != "" {
				script += "touch sys/fs/cgroup/" + test.groups
			}
			if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			mustInstall(t, Options{Root: root, Engines: []Engine{Containerd}})
			text, err := os.ReadFile(root + BaseSpec)
			if err != nil {
				t.Fatal(err)
			}
			var spec struct {
				Linux struct {
					Namespaces []struct{ Type string } `json:"namespaces"`
				} `json:"linux"`
			}
			if err := json.Unmarshal(text, &spec); err != nil {
				t.Fatal(err)
			}
			if len(spec.Linux.Namespaces) != test.want {
				t.Errorf("%s", text)
			}
		})
	}
}
