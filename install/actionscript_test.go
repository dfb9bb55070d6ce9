package install

import (
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
)

// TestFromProgramToScript replaces a line that calls the program, written while there was
// no shell, by one that calls the script, and the other way round.
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

// TestNotExecutable installs over files that lost their execute bits, with which CRIU
// aborts every restore: the next installation restores the bits.
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
		t.Errorf("not as before:\n%s", string(diff.Diff("before", []byte(before), "after", []byte(after))))
	}
}

// TestScriptReplaced replaces an edited script without execute bits by that of this
// version, with a record of the installation and without.
func TestScriptReplaced(t *testing.T) {
	for _, lost := range []bool{false, true} {
		root := machine(t, version4, nil)
		o := Options{Root: root}
		mustInstall(t, o)
		before := get(t, root+script)
		put(t, root+script, before+"# edited\n")
		if err := os.Chmod(root+script, 0o644); err != nil {
			t.Fatal(err)
		}
		if lost {
			if err := os.Remove(root + RecordFile); err != nil {
				t.Fatal(err)
			}
		}
		mustInstall(t, o)
		info, err := os.Stat(root + script)
		if after := get(t, root+script); err != nil || info.Mode() != 0o755 || after != before {
			t.Errorf("%v, %v, %q", info, err, after)
		}
		if r := mustUninstall(t, o); len(r.Kept) > 0 || get(t, root+CRIUFile) != "" {
			t.Errorf("kept %q, CRIU's configuration is %q", r.Kept, get(t, root+CRIUFile))
		}
	}
}

// TestPackagedScript neither writes nor removes the files of a package.
func TestPackagedScript(t *testing.T) {
	root := machine(t, version4, map[string]string{own: ""})
	copyFile(t, program, root+own)
	f, err := manifests.ActionScript(own)
	if err != nil {
		t.Fatal(err)
	}
	put(t, root+script, f.Data)
	for _, name := range []string{own, script} {
		if err := os.Chmod(root+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Root: root}
	unchanged(t, root, func() {
		for _, c := range mustInstall(t, o).Changes {
			if c.Path != root+CRIUFile && c.Path != root+RecordFile {
				t.Errorf("%s was written", c.Path)
			}
		}
		if get(t, root+CRIUFile) != line {
			t.Errorf("%q", get(t, root+CRIUFile))
		}
		mustUninstall(t, o)
	})
}

// TestScriptKeepsProgram keeps the program while CRIU calls a script that calls it, also
// one that Install did not write.
func TestScriptKeepsProgram(t *testing.T) {
	root := machine(t, version4, nil)
	mustInstall(t, Options{Root: root, Engines: []Engine{Podman}})
	f, err := manifests.ActionScript(own)
	if err != nil {
		t.Fatal(err)
	}
	put(t, root+script, f.Data)
	put(t, root+"/etc/criu/runc.conf", line)
	if r := mustUninstall(t, Options{Root: root, Engines: []Engine{Podman}}); get(t, root+own) == "" {
		t.Errorf("the program was removed; kept: %q", r.Kept)
	}
}
