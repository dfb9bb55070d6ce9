package lab

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// CRIUScript returns the path of systemd-autofs-restart.sh, as the package criu installed
// it (https://github.com/checkpoint-restore/criu/blob/v4.2.1/scripts/systemd-autofs-restart.sh).
func CRIUScript(t testing.TB) string {
	t.Helper()
	for _, folder := range []string{"/usr/libexec/criu/scripts", "/usr/lib/criu/scripts"} {
		path := filepath.Join(folder, "systemd-autofs-restart.sh")
		if _, err := os.Stat(path); err == nil {
			return path
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	t.Fatal("the package criu has no systemd-autofs-restart.sh")
	return ""
}

// scriptUnits is the script's list of units, which its users edit.
var scriptUnits = regexp.MustCompile(`(?m)^AUTOFS_SERVICES=.*$`)

// CRIUScriptFor copies [CRIUScript], with the given units instead of its own.
func CRIUScriptFor(t testing.TB, units []string) string {
	t.Helper()
	original := CRIUScript(t)
	text, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	if !scriptUnits.Match(text) {
		t.Fatalf("%s: the script has another form", original)
	}
	text = scriptUnits.ReplaceAll(text, []byte(`AUTOFS_SERVICES="`+strings.Join(units, " ")+`"`))
	path := filepath.Join(t.TempDir(), filepath.Base(original))
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
