package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestGroupsHostile restores checkpoints whose watches have paths outside, and one into a
// hierarchy that is full. The program creates nothing outside the container's own group,
// and does not abort the restore: CRIU does, because of the watch.
func TestGroupsHostile(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	const watched = "/sys/fs/cgroup/system.slice/mnt-covered.mount/cgroup.events"
	full := "echo 1 >/sys/fs/cgroup/" + s.ContainerID() + "/cgroup.max.descendants\n"
	for name, test := range map[string]struct {
		path   string // replaces the watched path, with the same length
		shell  string // shell commands before the program, at its stage
		reason string
	}{
		"dot dot":            {path: pad("/sys/fs/cgroup/../../../run/hostile", watched)},
		"a file's name":      {path: pad("/sys/fs/cgroup/system.slice/cgroup.procs/", watched), reason: "names no control group"},
		"another mount":      {path: pad("/run/hostile", watched)},
		"a full hierarchy":   {path: watched, shell: full, reason: "the hierarchy is full"},
		"a link":             {path: pad("/sys/fs/cgroup/hostile-link/a", watched), shell: "ln -s /run /sys/fs/cgroup/" + s.ContainerID() + "/hostile-link 2>/dev/null\n"},
		"nothing is spoiled": {path: watched},
	} {
		t.Run(name, func(t *testing.T) {
			images := filepath.Join(lab.Scratch(t, "hostile"), strings.ReplaceAll(name, " ", "-"))
			copyWatches(t, s.Images, images, watched, test.path)
			shell := ""
			if test.shell != "" {
				shell = "if [ \"$CRTOOLS_SCRIPT_ACTION\" = post-setup-namespaces ]; then\n" + test.shell + "fi\n"
			}
			before := outside(t)
			lab.InstallWrappedScript(t, lab.Hook(), shell)
			r, err := s.TryRestore(t, lab.RestoreOptions{Images: images})
			log := hookLines(s.RestoreLog())
			for _, change := range lab.Changes(before, outside(t)) {
				t.Errorf("outside of the container's group: %s", change)
			}
			if found, _ := filepath.Glob("/run/hostile*"); len(found) > 0 {
				t.Errorf("created: %q", found)
			}
			switch {
			case test.path == watched && test.shell == "":
				if err != nil {
					t.Fatalf("%v\n%s", err, log)
				}
				r.Kill(t)
			case err == nil:
				r.Kill(t)
				if name != "a link" { // created as a group in the container's own, if it is not a link
					t.Errorf("restored:\n%s", log)
				}
			case !strings.Contains(err.Error(), "fsnotify: Unable to open"):
				t.Errorf("want CRIU to fail for the watch: %v\n%s", err, log)
			}
			if !strings.Contains(log, test.reason) || strings.Contains(log, "\n\n") {
				t.Errorf("want %q in the log:\n%s", test.reason, log)
			}
		})
	}
}

// pad extends a path to the length of another one, with the same name at its end.
func pad(path, like string) string {
	const file = "/cgroup.events"
	return path + strings.Repeat("x", len(like)-len(path)-len(file)) + file
}

// copyWatches copies images and replaces one watched path in them.
func copyWatches(t *testing.T, from, to, old, path string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(to, "files.img")
	data := []byte(readFile(t, name))
	if len(old) != len(path) || !bytes.Contains(data, []byte(old)) {
		t.Fatalf("%s: %q cannot be replaced by %q", name, old, path)
	}
	if err := os.WriteFile(name, bytes.ReplaceAll(data, []byte(old), []byte(path)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// outside returns the control groups that are not the laboratory's, with names that occur
// in the watched paths: others may come and go on the machine.
func outside(t *testing.T) []string {
	t.Helper()
	name := regexp.MustCompile(`^(hostile.*|mnt-.*|system\.slice|init\.scope|cgroup\.procs|x+)$`)
	var list []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && !strings.Contains(path, os.Getenv("LAB_ID")+"-") && strings.Count(path, "/") <= 4 && name.MatchString(d.Name()) {
			list = append(list, path)
		}
		return nil //nolint:nilerr // other groups may end at any time
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
