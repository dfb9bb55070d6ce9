package manifests

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
)

// hooksFile is the hooks.d schema 1.0.0, all of its fields (oci-hooks(5)).
type hooksFile struct {
	Version string `json:"version"`
	Hook    struct {
		Path    string   `json:"path"`
		Args    []string `json:"args"`
		Env     []string `json:"env"`
		Timeout *int     `json:"timeout"`
	} `json:"hook"`
	When struct {
		Always        *bool             `json:"always"`
		Annotations   map[string]string `json:"annotations"`
		Commands      []string          `json:"commands"`
		HasBindMounts *bool             `json:"hasBindMounts"`
	} `json:"when"`
	Stages []string `json:"stages"`
}

func decode(t *testing.T, f File) hooksFile {
	t.Helper()
	var h hooksFile
	d := json.NewDecoder(strings.NewReader(f.Data))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		t.Fatalf("%s: %v", f.Name, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		t.Errorf("%s: something follows the JSON (%v)", f.Name, err)
	}
	return h
}

// TestActionScriptFailsOpen: neither a missing program nor one that cannot be executed makes
// CRIU abort the restore; what the program returns does, which is for "strict".
func TestActionScriptFailsOpen(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	script, err := ActionScript(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		program string
		status  int
	}{{"", 0}, {"\x7fELF, half of it", 0}, {"#!/absent/interpreter", 0}, {"#!/bin/sh\nexit 3\n", 3}, {"#!/bin/sh\n:\n", 0}} {
		if test.program != "" {
			if err := os.WriteFile(program, []byte(test.program), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for _, shell := range []string{"sh", "dash", "bash"} {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Logf("%s is not installed", shell)
				continue
			}
			cmd := exec.Command(path, "-c", script.Data)
			cmd.Env = []string{hook.EnvAction + "=pre-restore"}
			if output, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != test.status {
				t.Errorf("%s, %q: status %d, want %d: %s", shell, test.program, cmd.ProcessState.ExitCode(), test.status, output)
			}
		}
	}
}

func TestHooks(t *testing.T) {
	files, err := Hooks(Program)
	if err != nil {
		t.Fatal(err)
	}
	var stages []string
	for _, f := range files {
		h := decode(t, f)
		if h.Version != "1.0.0" {
			t.Errorf("%s: version %q, want 1.0.0", f.Name, h.Version)
		}
		if h.Hook.Path != Program {
			t.Errorf("%s: path %q, want %s", f.Name, h.Hook.Path, Program)
		}
		if h.When.Always == nil || !*h.When.Always {
			t.Errorf("%s: when.always is not true", f.Name)
		}
		if len(h.Stages) != 1 || len(h.Hook.Args) != 2 || h.Hook.Args[1] != h.Stages[0] {
			t.Fatalf("%s: arguments %q, stages %q: want one stage, and its name as argument", f.Name, h.Hook.Args, h.Stages)
		}
		if !hook.IsStage(h.Stages[0]) {
			t.Errorf("%s: the program knows no stage %q", f.Name, h.Stages[0])
		}
		// The program ends by itself before a runtime would kill it.
		if h.Hook.Timeout == nil || float64(*h.Hook.Timeout) <= hook.Deadline.Seconds() {
			t.Errorf("%s: the timeout is not above the program's own %s", f.Name, hook.Deadline)
		}
		if want := "autofs-restore-hook-" + h.Stages[0] + ".json"; f.Name != want {
			t.Errorf("file %s is for the stage %s: want the name %s", f.Name, h.Stages[0], want)
		}
		stages = append(stages, h.Stages[0])
	}
	if !slices.Equal(stages, []string{"createRuntime", "poststart"}) {
		t.Errorf("stages %q, want createRuntime and poststart", stages)
	}
}

func TestActionScriptLine(t *testing.T) {
	line, err := ActionScriptLine(Program)
	if want := "action-script " + Program + "\n"; err != nil || line != want {
		t.Errorf("%q, %v, want %q", line, err, want)
	}
}

// TestPath has paths that JSON or CRIU's configuration would take for something
// else.
func TestPath(t *testing.T) {
	for _, good := range []string{Program, "/opt/a_b/c+d-1.0/autofs-restore-hook"} {
		if _, err := ActionScriptLine(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "autofs-restore-hook", "./hook", "/a/../hook", "/a//hook", "/a/",
		"/a b", "/a#b", "/a\"b", "/a'b", "/a\\b", "/a\nb", "/a\tb", "/ä", Placeholder,
	} {
		if line, err := ActionScriptLine(bad); err == nil {
			t.Errorf("ActionScriptLine(%q) = %q, want an error", bad, line)
		}
		if script, err := ActionScript(bad); err == nil {
			t.Errorf("ActionScript(%q) = %q, want an error", bad, script.Name)
		}
		if files, err := Hooks(bad); err == nil {
			t.Errorf("Hooks(%q) gave %d files, want an error", bad, len(files))
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("Hooks(%q): more than one line: %v", bad, err)
		}
	}
}
