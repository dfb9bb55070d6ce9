package install

import (
	"os"
	"testing"
)

// otherVersion puts a program there that is another version of this one.
func otherVersion(t *testing.T, name string) {
	t.Helper()
	put(t, name, get(t, program)+"another version")
	if err := os.Chmod(name, 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestProgramOfPackage: what a package has put there is not replaced by another
// version, nor removed: the package would bring its own back.
func TestProgramOfPackage(t *testing.T) {
	root := machine(t, version4, nil)
	otherVersion(t, root+own)
	refused(t, Options{Root: root}, "by a package or by hand")
	if !Foreign([]byte(get(t, root+own)), nil) {
		t.Error("not known as a package's")
	}
	if Foreign([]byte("#!/bin/sh\n"), nil) {
		t.Error("any file is a package's")
	}
}

// TestPackageTakesOver: a package comes to a machine where the program was
// installed without one.
func TestPackageTakesOver(t *testing.T) {
	root := machine(t, version4, nil)
	o := Options{Root: root}
	otherVersion(t, root+"/older")
	older := o
	older.Program = root + "/older"
	if _, err := Install(t.Context(), older); err != nil {
		t.Fatal(err)
	}
	if Foreign([]byte(get(t, root+own)), []byte(get(t, root+RecordFile))) {
		t.Error("what was installed is taken for a package's")
	}
	mustInstall(t, o) // an upgrade without a package
	if get(t, root+own) != get(t, program) {
		t.Error("the older version was not replaced")
	}
	otherVersion(t, root+own) // that of the package
	refused(t, o, "by a package or by hand")

	// The package's own call of install.
	of := o
	of.Program = root + own
	if _, err := Install(t.Context(), of); err != nil {
		t.Fatal(err)
	}
	refused(t, o, "by a package or by hand")
	mustUninstall(t, o)
	if get(t, root+own) == "" {
		t.Error("the package's program was removed")
	}
	if got := get(t, root+CRIUFile); got != "" {
		t.Errorf("CRIU's configuration is %q", got)
	}
}
