package cri

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestDoctor has the program say whether the configuration of the engine has restore
// switched off: containerd's by default, where it knows the switch, and on in a file
// that the configuration imports.
func TestDoctor(t *testing.T) {
	lab.RequireNode(t)
	program, err := exec.LookPath("containerd")
	if err != nil {
		t.Fatal(err)
	}
	if path := os.Getenv("ENGINE_PATH"); path != "" {
		link := "/usr/local/bin/containerd" // before the node's own
		if err := os.Symlink(program, link); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(link) })
		program = link
	}
	said := func(want string) {
		t.Helper()
		var said struct {
			Checks []struct{ ID, Status, Text string } `json:"checks"`
		}
		r := lab.RunHook(t, nil, nil, "doctor", "--json")
		if err := json.Unmarshal(r.Stdout, &said); err != nil {
			t.Fatalf("%v: %s%s", err, r.Stdout, r.Stderr)
		}
		for _, c := range said.Checks {
			if c.ID == "containerd" && strings.HasPrefix(c.Text, program+" ") {
				t.Logf("%s %s: %s", c.Status, c.ID, c.Text)
				if got := c.Status + " " + c.Text; !strings.Contains(got, want) {
					t.Errorf("%q, want %q", got, want)
				}
				return
			}
		}
		t.Fatalf("doctor says nothing of %s: %s", program, r.Stdout)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(name) })
	}
	const on = "it restores containers with runc or crun"
	dump, err := exec.Command(program, "config", "dump").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(dump), "enable_experimental_restore_via_create") {
		said("restore is switched off by its configuration (enable_experimental_restore_via_create = false)")
	} else {
		said(on)
	}
	fragment, err := os.ReadFile(filepath.Join(lab.Checkout(), "manifests", "containerd", "restore.toml"))
	if err != nil {
		t.Fatal(err)
	}
	write("/etc/containerd/config.toml", "version = 3\nimports = [\"conf.d/*.toml\"]\n")
	write("/etc/containerd/conf.d/restore.toml", string(fragment))
	said(on)
}
