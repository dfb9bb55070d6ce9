package agent

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// What the agent installs on the host.
const (
	installedProgram = "/usr/libexec/oci/hooks.d/autofs-restore-hook"
	installedScript  = installedProgram + "-action-script"
	criuConfig       = "/etc/criu/default.conf"
)

// TestInstall has the agent install the hook, keep it installed, and remove it.
func TestInstall(t *testing.T) {
	d := startContainerd(t)
	other := "# another tool's\nlog-file other.log\n"
	lab.InstallActionScript(t, "/bin/true") // and its folder
	if err := os.WriteFile(criuConfig, []byte(other), 0o644); err != nil {
		t.Fatal(err)
	}
	p := newPod(t, d, func(s *corev1.PodSpec) {
		s.Containers[0].Args = append(s.Containers[0].Args, "-install-every=200ms", "-uninstall-on-exit")
	})
	p.start(t)
	p.ready(t)
	installed := func() bool {
		program, err := os.ReadFile(installedProgram)
		text, _ := os.ReadFile(criuConfig)
		_, noScript := os.Stat(installedScript)
		return err == nil && noScript == nil && sameFile(t, program) && string(text) == other+"action-script "+installedScript+"\n"
	}
	if !installed() {
		text, err := os.ReadFile(criuConfig)
		t.Errorf("ready, and not installed: %q, %v", text, err)
	}

	c := checkpointed(t, d)
	c.restore(t)
	s := p.counted(t, 1)
	if s.Sum("restores_total", "by=action-script,outcome=repaired") != 1 || s["reaction_seconds"] != 0 {
		t.Errorf("%v", s)
	}
	c.CheckAnswers(t, lab.Accesses)
	c.end(t)

	for what, spoil := range map[string]func() error{
		"the program is removed": func() error { return os.Remove(installedProgram) },
		"the script is removed":  func() error { return os.Remove(installedScript) },
		"the line is removed":    func() error { return os.WriteFile(criuConfig, []byte(other), 0o644) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, 5*time.Second, what+", and written again", installed)
	}

	p.stop(t, syscall.SIGTERM)
	for _, name := range []string{installedProgram, installedScript} {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
	if text, err := os.ReadFile(criuConfig); err != nil || string(text) != other {
		t.Errorf("CRIU's configuration is %q, %v, want it as it was", text, err)
	}
}

// TestNotReady: what is not installed, or not by us, makes the agent say so.
func TestNotReady(t *testing.T) {
	d := startContainerd(t)
	lab.InstallActionScript(t, "")
	p := newPod(t, d, func(s *corev1.PodSpec) { s.Containers[0].Args = append(s.Containers[0].Args, "-install-every=1h") })
	p.start(t)
	p.ready(t)
	t.Cleanup(func() { _, _ = os.Remove(installedProgram), os.Remove(installedScript) })
	for what, test := range map[string]struct {
		spoil func() error
		says  string
	}{
		"no program":      {func() error { return os.Remove(installedProgram) }, "no such file"},
		"no script":       {func() error { return os.Remove(installedScript) }, "no such file"},
		"another program": {func() error { return os.WriteFile(installedProgram, []byte("#!/bin/true\n"), 0o755) }, "another version"},
		"no line":         {func() error { return os.Remove(criuConfig) }, ""},
	} {
		program, err := os.ReadFile(installedProgram)
		if err != nil {
			t.Fatal(err)
		}
		line, err := os.ReadFile(criuConfig)
		if err != nil {
			t.Fatal(err)
		}
		script, err := os.ReadFile(installedScript)
		if err != nil {
			t.Fatal(err)
		}
		if err := test.spoil(); err != nil {
			t.Fatal(err)
		}
		status, body := p.get("/readyz")
		if status != http.StatusServiceUnavailable || !strings.Contains(body, "[-] hook: ") || !strings.Contains(body, test.says) {
			t.Errorf("%s: %d\n%s", what, status, body)
		}
		if status, body := p.get("/healthz"); status != http.StatusOK {
			t.Errorf("%s: a restart of the agent would not help: %d\n%s", what, status, body)
		}
		os.Remove(installedProgram)
		if err := errors.Join(os.WriteFile(installedProgram, program, 0o755), os.WriteFile(installedScript, script, 0o755), os.WriteFile(criuConfig, line, 0o644)); err != nil {
			t.Fatal(err)
		}
		p.ready(t)
	}
}

// sameFile compares a program with the one in the image.
func sameFile(t *testing.T, program []byte) bool {
	t.Helper()
	ours, err := os.ReadFile(lab.Checkout() + "/bin/autofs-restore-hook")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(program, ours)
}
