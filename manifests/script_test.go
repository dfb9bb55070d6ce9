package manifests

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
)

// TestActionScript runs the script at CRIU's stages, with a program that writes
// what it was called with and ends with the status 3.
func TestActionScript(t *testing.T) {
	dir, images := t.TempDir(), t.TempDir()
	program := filepath.Join(dir, "autofs-restore-hook")
	script, err := ActionScript(program)
	if err != nil {
		t.Fatal(err)
	}
	if called, ok := CalledBy(script.Name, script.Data+"# edited\n"); called != program || !ok {
		t.Errorf("%s calls %q, %t", script.Name, called, ok)
	}
	if called, ok := CalledBy("/opt"+script.Name, script.Data); ok {
		t.Errorf("under another name it calls %q", called)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(script.Name, script.Data)
	write(program, "#!/bin/sh\necho called $# $CRTOOLS_SCRIPT_ACTION\nexit 3\n")
	call := func(environment ...string) (string, int) {
		cmd := exec.Command(script.Name)
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "CRTOOLS_IMAGE_DIR=" + images}, environment...)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	const prepare = hook.EnvAction + "=post-setup-namespaces"
	if out, status := call(prepare); out != "" || status != 0 {
		t.Errorf("no automount in the images: %q, exit status %d; want the program not to be called", out, status)
	}
	write(filepath.Join(images, "autofs-7.img"), "")
	if out, status := call(); out != "" || status != 0 {
		t.Errorf("no stage: %q, exit status %d", out, status)
	}
	// All stages of CRIU 4.2 (criu/action-scripts.c).
	for _, action := range strings.Fields("pre-stream pre-dump post-dump pre-restore post-restore network-lock network-unlock " +
		"setup-namespaces post-setup-namespaces pre-resume post-resume orphan-pts-master status-ready query-ext-files") {
		out, status := call(hook.EnvAction + "=" + action)
		wantOut, wantStatus := "", 0
		if hook.IsAction(action) {
			wantOut, wantStatus = "called 0 "+action+"\n", 3
		}
		if out != wantOut || status != wantStatus {
			t.Errorf("%s: %q, exit status %d; want %q, %d", action, out, status, wantOut, wantStatus)
		}
	}
	for what, spoil := range map[string]func() error{
		"not executable": func() error { return os.Chmod(program, 0o644) },
		"a directory":    func() error { return errors.Join(os.Remove(program), os.Mkdir(program, 0o755)) },
		"absent":         func() error { return os.RemoveAll(program) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if out, status := call(hook.EnvAction + "=post-resume"); !strings.Contains(out, program+" is missing") || status != 0 {
			t.Errorf("%s: %q, exit status %d", what, out, status)
		}
		_ = os.RemoveAll(program)
		write(program, "")
	}
}
