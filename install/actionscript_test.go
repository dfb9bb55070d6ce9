package install

import (
	"os"
	"strings"
	"testing"
)

// TestFromProgramToScript: a line that calls the program, as it was written where
// there was no shell, becomes one that calls the script when there is, and the
// other way round.
func TestFromProgramToScript(t *testing.T) {
	root := machine(t, version4, map[string]string{CRIUFile: "tcp-close"})
	o := Options{Root: root}
	if err := os.Rename(root+shell, root+"/sh"); err != nil {
		t.Fatal(err)
	}
	unchanged(t, root, func() {
		if r := mustInstall(t, o); len(r.Notes) == 0 || !strings.Contains(r.Notes[0], "bin/sh: CRIU calls the program itself") {
			t.Errorf("notes: %q", r.Notes)
		}
		put(t, root+CRIUFile, get(t, root+CRIUFile)+"ghost-limit 1\n")
		if got, want := get(t, root+CRIUFile), "tcp-close\n"+direct+"ghost-limit 1\n"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if err := os.Rename(root+"/sh", root+shell); err != nil {
			t.Fatal(err)
		}
		mustInstall(t, o)
		if got, want := get(t, root+CRIUFile), "tcp-close\n"+line+"ghost-limit 1\n"; got != want {
			t.Errorf("with a shell: %q, want %q", got, want)
		}
		info, err := os.Stat(root + script)
		if err != nil || info.Mode() != 0o755 {
			t.Errorf("%v, %v", info, err)
		}
		if err := os.Rename(root+shell, root+"/sh"); err != nil {
			t.Fatal(err)
		}
		mustInstall(t, o)
		if got, want := get(t, root+CRIUFile), "tcp-close\n"+direct+"ghost-limit 1\n"; got != want {
			t.Errorf("without one again: %q, want %q", got, want)
		}
		mustUninstall(t, o)
		if got := get(t, root+CRIUFile); got != "tcp-close\nghost-limit 1\n" {
			t.Errorf("removed: %q", got)
		}
		put(t, root+CRIUFile, "tcp-close")
	})
}

// TestNotExecutable: what CRIU calls and cannot execute makes it abort every
// restore. Installing again mends that.
func TestNotExecutable(t *testing.T) {
	root := machine(t, version4, nil)
	o := Options{Root: root}
	mustInstall(t, o)
	before := listing(t, root)
	for _, name := range []string{own, script} {
		if err := os.Chmod(root+name, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if r := mustInstall(t, o); len(r.Changes) != 2 {
		t.Errorf("changes: %+v", r.Changes)
	}
	if after := listing(t, root); after != before {
		t.Errorf("not as before:\n%s", hunk(before, after))
	}
}

// TestScriptLost: without the record the script is known by its content.
func TestScriptLost(t *testing.T) {
	root := machine(t, version4, nil)
	o := Options{Root: root}
	mustInstall(t, o)
	if err := os.Remove(root + RecordFile); err != nil {
		t.Fatal(err)
	}
	mustInstall(t, o)
	mustUninstall(t, o)
	for _, name := range []string{script, RecordFile} {
		if _, err := os.Lstat(root + name); err == nil {
			t.Errorf("%s is left", name)
		}
	}
}
