package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestUninstallDuringCRIU removes the program while a CRIU runs that has read the name of
// the action script: its restore or dump still succeeds.
func TestUninstallDuringCRIU(t *testing.T) {
	requireHook(t)
	file := packageFile(t)
	s := checkpoint(t)
	lab.InstallActionScript(t, "")
	if err := os.RemoveAll("/run/autofs-restore-hook"); err != nil {
		t.Fatal(err)
	}
	_, err := os.Stat(filepath.Dir(defaultConf))
	folder := err == nil
	before := nodeFiles(t)
	for name, test := range map[string]struct {
		stage                  string
		install, remove, again []string
	}{
		"restore": {"setup-namespaces", []string{lab.Hook(), "install"}, []string{lab.Hook(), "uninstall"}, []string{lab.Hook(), "uninstall"}},
		"dump":    {"pre-dump", []string{lab.Hook(), "install"}, []string{lab.Hook(), "uninstall"}, []string{lab.Hook(), "uninstall"}},
		"package": { // dpkg removes the program itself: only after it has created the control groups
			"post-restore",
			[]string{"dpkg", "--install", file},
			[]string{"dpkg", "--remove", "autofs-restore-hook"},
			[]string{"dpkg", "--purge", "autofs-restore-hook"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, test.install)
			removal := removeAt(t, test.stage, test.remove)
			if test.stage == "pre-dump" {
				c := lab.Start(t, lab.Options{Plain: true})
				c.Settle(t)
				c.Checkpoint(t)
			} else {
				s.Restore(t, lab.RestoreOptions{}).Kill(t)
			}
			text := readIfThere(removal)
			if t.Logf("\n%s", text); text == "" {
				t.Error("it was not removed meanwhile, so the test proves nothing")
			}
			for _, kept := range []string{installed + "-action-script", installed} {
				if _, err := os.Stat(kept); err != nil && (kept != installed || name != "package") {
					t.Error(err)
				}
			}
			run(t, test.again)
			if err := os.Remove(defaultConf); err != nil { // the line of this test
				t.Error(err)
			}
			if !folder {
				_ = os.Remove(filepath.Dir(defaultConf))
			}
			checkNodeFiles(t, before)
		})
	}
}

// removeAt makes CRIU run a command at a stage, beside the action script of the installed
// program. It returns the file of that command's output.
func removeAt(t *testing.T, stage string, command []string) string {
	t.Helper()
	dir := lab.Scratch(t, "removal-"+stage+filepath.Base(command[0]))
	script, out := filepath.Join(dir, "script"), filepath.Join(dir, "out")
	text := fmt.Sprintf("#!/bin/sh\n[ \"$CRTOOLS_SCRIPT_ACTION\" != %s ] || exec %s >%s 2>&1 </dev/null\n", stage, join(command), out)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(defaultConf, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "action-script %s\n", script); err != nil {
		t.Fatal(err)
	}
	return out
}

func join(words []string) (line string) {
	for _, w := range words {
		line += " '" + w + "'"
	}
	return line
}

func run(t *testing.T, command []string) {
	t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%q: %v\n%s", command, err, out)
	}
}
