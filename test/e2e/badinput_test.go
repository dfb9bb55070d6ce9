package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// checkRefused checks that a run was refused: with one of the given statuses, and one message.
func checkRefused(t *testing.T, r lab.Result, statuses ...int) {
	t.Helper()
	if !slices.Contains(statuses, r.Status) {
		t.Errorf("exit status %d, want one of %v: %s", r.Status, statuses, r.Stderr)
	}
	message := strings.TrimSpace(r.Stderr)
	if message == "" {
		t.Error("no message")
	}
	if strings.Contains(message, "goroutine ") {
		t.Errorf("a panic is no message:\n%s", message)
	}
	t.Logf("status %d: %s", r.Status, message)
}

// TestBadState passes an OCI hook an unusable state. The hook ends with status 0: a
// repair must never make a restore fail.
func TestBadState(t *testing.T) {
	requireHook(t)
	for _, c := range []struct {
		name  string
		state []byte
	}{
		{"empty", nil},
		{"truncated", []byte(`{"ociVersion":"1.0.2","id":"x","status":"cre`)},
		{"10 MB", bytes.Repeat([]byte(" "), 10<<20)},
		{"10 MB of JSON", []byte(`{"id":"` + strings.Repeat("x", 10<<20) + `"}`)},
		{"not JSON", []byte("\x00\xff hello")},
		{"no pid", []byte(`{"ociVersion":"1.0.2","id":"x","status":"running"}`)},
		{"pid 0", []byte(`{"ociVersion":"1.0.2","id":"x","status":"running","pid":0}`)},
		{"pid -1", []byte(`{"ociVersion":"1.0.2","id":"x","status":"running","pid":-1}`)},
		{"dead pid", []byte(`{"ociVersion":"1.0.2","id":"x","status":"running","pid":` + deadPID(t) + `}`)},
		{"own namespace", []byte(`{"ociVersion":"1.0.2","id":"x","status":"running","pid":` + strconv.Itoa(os.Getpid()) + `}`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkRefused(t, lab.RunHook(t, c.state, nil, "poststart"), 0)
		})
		t.Run(c.name+" createRuntime", func(t *testing.T) {
			if r := lab.RunHook(t, c.state, nil, "createRuntime"); r.Status != 0 {
				t.Errorf("exit status %d: %s", r.Status, r.Stderr)
			}
		})
	}
}

// TestBadPID names processes that cannot be repaired.
func TestBadPID(t *testing.T) {
	requireHook(t)
	for _, verb := range []string{"repair", "inspect"} {
		for _, c := range []struct {
			name     string
			args     []string
			statuses []int
		}{
			{"no pid", nil, []int{2}},
			{"a word", []string{"abc"}, []int{2}},
			{"pid 0", []string{"0"}, []int{2}},
			{"pid -1", []string{"-1"}, []int{2}},
			{"pid -1 as an argument", []string{"--", "-1"}, []int{2}},
			{"too large", []string{"99999999999999999999"}, []int{2}},
			{"two pids", []string{"1", "2"}, []int{2}},
			{"dead pid", []string{deadPID(t)}, []int{1, 2}},
			{"own namespace", []string{strconv.Itoa(os.Getpid())}, []int{1, 2}},
		} {
			t.Run(verb+" "+c.name, func(t *testing.T) {
				checkRefused(t, lab.RunHook(t, nil, nil, append([]string{verb}, c.args...)...), c.statuses...)
			})
		}
	}
}

// TestBadAction calls the program as CRIU would, with an incomplete environment.
func TestBadAction(t *testing.T) {
	requireHook(t)
	for _, env := range [][]string{
		{"CRTOOLS_SCRIPT_ACTION=post-resume"},
		{"CRTOOLS_SCRIPT_ACTION=pre-resume", "CRTOOLS_INIT_PID=0"},
		{"CRTOOLS_SCRIPT_ACTION=pre-resume", "CRTOOLS_INIT_PID=" + deadPID(t), "CRTOOLS_IMAGE_DIR=/nonexistent"},
		{"CRTOOLS_SCRIPT_ACTION=post-resume", "CRTOOLS_INIT_PID=" + strconv.Itoa(os.Getpid())},
	} {
		checkRefused(t, lab.RunHook(t, nil, env), 0)
	}
	for _, action := range []string{"pre-dump", "network-lock", "post-dump", "network-unlock", "a-stage-of-the-future"} {
		if r := lab.RunHook(t, nil, []string{"CRTOOLS_SCRIPT_ACTION=" + action}); r.Status != 0 || r.Stderr != "" {
			t.Errorf("%s is not handled: exit status %d: %s", action, r.Status, r.Stderr)
		}
	}
}

// asCRIU calls the program as CRIU does at a stage of a restore, with a folder of images,
// and returns the result. The restoring process is this one.
func asCRIU(t *testing.T, r *lab.Restored, stage, images string) lab.Result {
	t.Helper()
	return lab.RunHook(t, nil, []string{
		"CRTOOLS_SCRIPT_ACTION=" + stage, "CRTOOLS_INIT_PID=" + strconv.Itoa(r.PID), "CRTOOLS_IMAGE_DIR=" + images,
	})
}

// endAsCRIU calls it at the last stage, and removes the handover.
func endAsCRIU(t *testing.T, r *lab.Restored) lab.Result {
	t.Helper()
	result := asCRIU(t, r, "post-resume", "")
	for _, file := range matchesAny("/run/autofs-restore-hook/restores/*") {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
	}
	return result
}

// TestBadImages passes the program a folder that is no checkpoint. No mount of systemd
// may change at pre-resume; the errors at post-resume are sufficient.
func TestBadImages(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	for name, dir := range map[string]string{
		"missing":   "/nonexistent",
		"empty":     t.TempDir(),
		"truncated": damage(t, s.Images, func(b []byte) []byte { return b[:len(b)/2] }),
		"random": damage(t, s.Images, func(b []byte) []byte {
			for i := range b {
				b[i] = byte(i*7919 + len(b))
			}
			return b
		}),
	} {
		t.Run(name, func(t *testing.T) {
			r := restoreStale(t, s)
			before := withoutDaemon(r.MountTable(t))
			asCRIU(t, r, "pre-restore", dir)
			result := asCRIU(t, r, "pre-resume", dir)
			if after := withoutDaemon(r.MountTable(t)); after != before {
				t.Errorf("the mounts changed:\n%s\nbefore:\n%s", after, before)
			}
			end := endAsCRIU(t, r)
			result.Stderr += end.Stderr
			checkRefused(t, result, 0)
			checkCure(t, r.ReadReport(t), "reexecuted")
			r.CheckAnswers(t, lab.Accesses)
			r.Kill(t)
		})
	}
}

// damage copies a checkpoint's small images and corrupts those about mounts.
func damage(t *testing.T, images string, spoil func([]byte) []byte) string {
	t.Helper()
	dir := t.TempDir()
	files, err := filepath.Glob(filepath.Join(images, "*.img"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "mountpoints-") || strings.HasPrefix(name, "autofs-") {
			data = spoil(data)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestOddMountPoints has mount points with every kind of byte, and one of 4,000
// characters, on an automount that needs a repair.
func TestOddMountPoints(t *testing.T) {
	requireHook(t)
	r := restoreStale(t, checkpoint(t))
	// mount(8) does not accept a path of 4,000 characters from the root, but a relative
	// one.
	r.Run(t, "sh", "-ec", `
		odd() { mkdir "$1"; mount -t tmpfs odd "$1"; echo odd >"$1/file"; }
		cd /mnt/covered
		odd 'two  blanks'
		odd 'back\slash'
		odd 'octal\040escape'
		odd "$(printf 'new\nline')"
		odd "$(printf 'tab\tand bytes \377\001')"
		long=$(printf '%0249d' 0)
		path=/mnt/covered
		while [ ${#path} -lt 3740 ]; do mkdir "$long"; cd "$long"; path=$path/$long; done
		rest=$(printf "%0$((3999 - ${#path}))d" 0)
		odd "$rest"
		path=$path/$rest
		[ ${#path} -eq 4000 ]
	`)
	count := func() int { return strings.Count(r.MountTable(t), " tmpfs odd ") }
	if count() != 6 {
		t.Fatalf("%d odd mounts, want 6", count())
	}
	inspect := lab.RunHook(t, nil, nil, "inspect", strconv.Itoa(r.PID))
	if inspect.Status != 0 || strings.Contains(string(inspect.Stdout), "\001") {
		t.Errorf("inspect: exit status %d, or raw control bytes for a terminal: %s", inspect.Status, inspect.Stderr)
	}
	if result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID)); result.Status != 0 {
		t.Errorf("repair: exit status %d: %s", result.Status, result.Stderr)
	}
	r.CheckAnswers(t, lab.Accesses)
	if count() != 6 {
		t.Errorf("%d odd mounts after the repair, want 6", count())
	}
	for _, name := range []string{"two  blanks", `back\slash`, `octal\040escape`, "new\nline"} {
		if o := r.Touch(t, lab.Covered+"/"+name+"/file", lab.AnswerLimit); strings.TrimSpace(o.Output) != "odd" {
			t.Errorf("%q: %s", name, o)
		}
	}
}

// TestStoppedInit repairs a container whose PID 1 is stopped: it cannot answer.
func TestStoppedInit(t *testing.T) {
	requireHook(t)
	r := restoreStale(t, checkpoint(t))
	before := withoutDaemon(r.MountTable(t))
	if err := syscall.Kill(r.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID))
	checkRefused(t, result, 1, 3)
	t.Logf("ended after %s", result.Took)
	if after := withoutDaemon(r.MountTable(t)); after != before {
		t.Errorf("the mounts changed:\n%s\nbefore:\n%s", after, before)
	}
	if err := syscall.Kill(r.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID)); result.Status != 0 {
		t.Errorf("repair after SIGCONT: exit status %d: %s", result.Status, result.Stderr)
	}
	r.CheckAnswers(t, lab.Accesses)
}

// deadPID is the number of a process that has ended.
func deadPID(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(cmd.Process.Pid)
}
