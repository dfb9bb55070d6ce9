package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestHostileImages passes the program images that an attacker made. If they cannot be
// read nothing is preserved; else false data concern only mounts of this container, and
// are checked against the kernel's.
func TestHostileImages(t *testing.T) {
	s := hostileCheckpoint(t)
	node := readNode(t)
	same := func(b []byte) []byte { return b }
	for name, change := range map[string]func(file string) error{
		"huge":            func(file string) error { return os.Truncate(file, 1<<40) },
		"fifo":            func(file string) error { return replace(file, func() error { return unix.Mkfifo(file, 0o600) }) },
		"directory":       func(file string) error { return replace(file, func() error { return os.Mkdir(file, 0o700) }) },
		"link to zeroes":  func(file string) error { return replace(file, func() error { return os.Symlink("/dev/zero", file) }) },
		"link to itself":  func(file string) error { return replace(file, func() error { return os.Symlink(file, file) }) },
		"link to secrets": func(file string) error { return replace(file, func() error { return os.Symlink("/etc/shadow", file) }) },
		"device": func(file string) error {
			return replace(file, func() error { return unix.Mknod(file, unix.S_IFCHR, 1<<8|5) })
		},
		"length of 4 GB": func(file string) error { return patch(file, 8, []byte{0xff, 0xff, 0xff, 0xff}) },
		"length below 0": func(file string) error { return patch(file, 8, []byte{0, 0, 0, 0x80}) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := damage(t, s.Images, same)
			for _, file := range matches(t, dir, "mountpoints-*.img") {
				if err := change(file); err != nil {
					t.Fatal(err)
				}
			}
			r := restoreStale(t, s)
			mounts := withoutDaemon(r.MountTable(t))
			asCRIU(t, r, "pre-restore", dir)
			result := asCRIU(t, r, "pre-resume", dir)
			if now := withoutDaemon(r.MountTable(t)); now != mounts {
				t.Errorf("mounts:\n%s\nbefore:\n%s", now, mounts)
			}
			result.Stderr += endAsCRIU(t, r).Stderr
			checkRefused(t, result, 0)
			checkLog(t, result.Stderr)
			r.Kill(t)
		})
	}
	for name, spoil := range map[string]func([]byte) []byte{
		"names out of the root": swap("/mnt/idle", "/../../xx"),
		"names of the host":     swap("/mnt/covered", "/etc/./shado"),
		"names of terminals":    swap("/mnt/idle", "/m\x1b[2J\n/x"),
		"one name for all":      func(b []byte) []byte { return swap("/mnt/stacked", "/mnt/covered")(b) },
	} {
		t.Run(name, func(t *testing.T) {
			r := restoreStale(t, s)
			dir := damage(t, s.Images, spoil)
			for _, stage := range []string{"pre-restore", "pre-resume"} {
				checkLog(t, asCRIU(t, r, stage, dir).Stderr)
			}
			checkLog(t, endAsCRIU(t, r).Stderr)
			t.Log(summary(r.ReadReport(t)))
			r.CheckAnswers(t, lab.Accesses)
			node.checkUnchanged(t)
			r.Kill(t)
		})
	}
}

func matches(t *testing.T, dir, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s: %v", pattern, err)
	}
	return files
}

func replace(file string, by func() error) error {
	if err := os.Remove(file); err != nil {
		return err
	}
	return by()
}

func patch(file string, at int64, b []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(b, at)
	return err
}

// swap exchanges a name for another one of the same length.
func swap(from, to string) func([]byte) []byte {
	if len(from) != len(to) {
		panic(fmt.Sprintf("%q and %q differ in length", from, to))
	}
	return func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(from), []byte(to)) }
}

// TestHostileAnnotations calls the program as a runtime does, with a state whose
// annotations ask for actions, and with names of paths elsewhere.
func TestHostileAnnotations(t *testing.T) {
	s := hostileCheckpoint(t)
	r := restoreStale(t, s)
	node := readNode(t)
	state, err := json.Marshal(map[string]any{
		"ociVersion": "1.0.2", "id": "../../../../tmp/escaped\nlevel=error", "status": "running", "pid": r.PID, "bundle": "/proc/1/root/etc",
		"annotations": map[string]string{
			"org.criu.config": "/etc/shadow", "autofs-restore-hook/strategy": "preserve", "autofs-restore-hook/images": "/nonexistent",
			"autofs-restore-hook/strict": "true", "run.oci.hooks.stderr": "/tmp/escaped", "x\nlevel=error": "\x1b[2J",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	result := lab.RunHook(t, state, nil, "poststart")
	checkLog(t, result.Stderr)
	if result.Status != 0 {
		t.Errorf("exit status %d: %s", result.Status, result.Stderr)
	}
	r.CheckAnswers(t, lab.Accesses)
	if leaked := matchesAny("/tmp/escaped*"); len(leaked) > 0 {
		t.Errorf("files outside of the run directory: %q", leaked)
	}
	found := false
	for _, file := range lab.RunFiles(t) {
		found = found || strings.HasPrefix(file, "reports/id-")
		if strings.Contains(file, "..") && strings.Contains(file, "/..") || strings.Contains(file, "\n") {
			t.Errorf("a file with an odd name: %q", file)
		}
	}
	if !found {
		t.Errorf("no report: %q", lab.RunFiles(t))
	}
	node.checkUnchanged(t)
}

func matchesAny(pattern string) []string {
	files, _ := filepath.Glob(pattern)
	return files
}
