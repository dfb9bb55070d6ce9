package manifests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestScriptLeavesLimitedGroup runs the action script with stand-ins for the files of
// control groups, of both versions.
func TestScriptLeavesLimitedGroup(t *testing.T) {
	const outside = "cgroup.procs"
	for name, test := range map[string]struct {
		group string            // content of the script's /proc/self/cgroup
		files map[string]string // below /sys/fs/cgroup
		moved string            // the file that the script writes to, "" for none
	}{
		"memory":                {"0::/c", map[string]string{outside: "", "c/memory.max": "1000"}, outside},
		"memory is reclaimed":   {"0::/c", map[string]string{outside: "", "c/memory.max": "max", "c/memory.high": "1000"}, outside},
		"processes":             {"0::/c", map[string]string{outside: "", "c/pids.max": "100000"}, outside},
		"further up":            {"0::/pod/c/init.scope", map[string]string{outside: "", "pod/memory.max": "1000", "pod/c/memory.max": "max"}, outside},
		"nothing":               {"0::/pod/c", map[string]string{outside: "", "pod/c/memory.max": "max", "pod/c/memory.high": "max", "pod/pids.max": "max"}, ""},
		"the root":              {"0::/", map[string]string{outside: "", "memory.max": "1000"}, ""},
		"a node in a container": {"0::/c", map[string]string{"init.scope/" + outside: "", "c/memory.max": "1000"}, "init.scope/" + outside},
		"no version 2":          {"0::/c", map[string]string{"c/memory.max": "1000"}, ""},
		"version 1": {
			"5:memory:/c\n4:pids:/\n3:cpu,cpuacct:/c",
			map[string]string{"memory/" + outside: "", "memory/c/memory.limit_in_bytes": "1000", "cpu,cpuacct/" + outside: ""},
			"memory/" + outside,
		},
		"version 1 without limits": {
			"5:memory:/c\n4:pids:/c",
			map[string]string{"memory/" + outside: "", "memory/c/memory.limit_in_bytes": "9223372036854771712", "pids/c/pids.max": "max"},
			"",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put := func(name, text string, mode os.FileMode) string {
				t.Helper()
				name = filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(text), mode); err != nil {
					t.Fatal(err)
				}
				return name
			}
			for name, text := range test.files {
				put("cgroup/"+name, text+"\n", 0o644)
			}
			f, err := ActionScript(put("program", "#!/bin/sh\necho called\n", 0o755))
			if err != nil {
				t.Fatal(err)
			}
			self := put("self", test.group+"\n", 0o644)
			put(filepath.Base(f.Name), strings.NewReplacer("/sys/fs/cgroup", dir+"/cgroup", "/proc/self/cgroup", self).Replace(f.Data), 0o755)
			cmd := exec.Command(f.Name)
			cmd.Env = []string{"CRTOOLS_SCRIPT_ACTION=pre-resume"}
			if out, err := cmd.CombinedOutput(); err != nil || string(out) != "called\n" {
				t.Fatalf("%q, %v", out, err)
			}
			for name, before := range test.files {
				want := before + "\n"
				if name == test.moved {
					want = "0\n"
				}
				if text, err := os.ReadFile(filepath.Join(dir, "cgroup", name)); err != nil || string(text) != want {
					t.Errorf("%s: %q, %v, want %q", name, text, err, want)
				}
			}
			_, there := test.files[outside]
			if _, err := os.Stat(filepath.Join(dir, "cgroup", outside)); (err == nil) != there {
				t.Errorf("%s is there: %v, want %v", outside, err == nil, there)
			}
		})
	}
}
