package install

import (
	"os"
	"testing"
)

// otherVersion writes another version of the program.
func otherVersion(t *testing.T, name string) {
	t.Helper()
	put(t, name, get(t, program)+"another version")
	if err := os.Chmod(name, 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestProgramOfPackage does not replace the program of a package: the package would
// restore its own.
func TestProgramOfPackage(t *testing.T) {
	root := machine(t, version4, nil)
	otherVersion(t, root+own)
	refused(t, Options{Root: root}, "by a package or by hand")
	if !IsForeign([]byte(get(t, root+own)), nil) {
		t.Error("not known as a package's")
	}
	if IsForeign([]byte("#!/bin/sh\n"), nil) {
		t.Error("any file is a package's")
	}
}

// TestPackageTakesOver installs a package over a program that Install wrote.
func TestPackageTakesOver(t *testing.T) {
	root := machine(t, version4, nil)
	o := Options{Root: root}
	otherVersion(t, root+"/older")
	older := o
	older.Program = root + "/older"
	if _, err := Install(t.Context(), older); err != nil {
		t.Fatal(err)
	}
	if IsForeign([]byte(get(t, root+own)), []byte(get(t, root+RecordFile))) {
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

// TestRecordFormat reads and writes the record of a former release.
func TestRecordFormat(t *testing.T) {
	const text = `{
  "program": "/usr/libexec/oci/hooks.d/autofs-restore-hook",
  "program_written": true,
  "program_fnv64a": "1f",
  "script_written": true,
  "action_script": {
    "file": "/etc/criu/default.conf",
    "created": true
  },
  "force_irmap": {
    "file": "/etc/criu/default.conf",
    "newline": true
  },
  "files": [
    {
      "engine": "podman",
      "path": "/usr/share/containers/oci/hooks.d/x.json",
      "fnv64a": "2f"
    }
  ],
  "folders": [
    "/etc/criu"
  ]
}
`
	root := t.TempDir()
	put(t, root+RecordFile, text)
	tree, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()
	r, err := readRecord(tree)
	if err != nil {
		t.Fatal(err)
	}
	if r.ScriptLine == nil || !r.ScriptLine.Created || r.ForceIrmap == nil || len(r.Files) != 1 || len(r.Directories) != 1 {
		t.Errorf("%+v", r)
	}
	if data, err := r.encode(); err != nil || string(data) != text {
		t.Errorf("%s, %v", data, err)
	}
}
