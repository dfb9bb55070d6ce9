package systemd

import (
	"os/exec"
	"strings"
	"testing"
)

var unitNames = map[string]string{
	"/":                        "-.automount",
	"/a":                       "a.automount",
	"/a/b":                     "a-b.automount",
	"/a/b/":                    "a-b.automount",
	"/a b":                     `a\x20b.automount`,
	"/a-b/c":                   `a\x2db-c.automount`,
	"/.a/.b":                   `\x2ea-.b.automount`,
	"/a\nb\tc":                 `a\x0ab\x09c.automount`,
	`/a\b`:                     `a\x5cb.automount`,
	"/ä":                       `\xc3\xa4.automount`,
	"/a:b_c.d":                 "a:b_c.d.automount",
	"/a@b":                     `a\x40b.automount`,
	"/\xff":                    `\xff.automount`,
	"/proc/sys/fs/binfmt_misc": "proc-sys-fs-binfmt_misc.automount",
}

func TestUnitNameFromPath(t *testing.T) {
	for path, want := range unitNames {
		if got := UnitNameFromPath(path, "automount"); got != want {
			t.Errorf("%q: %s, want %s", path, got, want)
		}
	}
}

// TestUnitNameAsSystemd asks systemd itself.
func TestUnitNameAsSystemd(t *testing.T) {
	program, err := exec.LookPath("systemd-escape")
	if err != nil {
		t.Skip("skipped: systemd-escape is not installed") // never required: its answers are in unitNames
	}
	for path, want := range unitNames {
		out, err := exec.Command(program, "--path", "--suffix=automount", "--", path).CombinedOutput()
		if err != nil {
			t.Logf("%q: systemd-escape refuses it: %s", path, out)
			continue
		}
		if got := strings.TrimSuffix(string(out), "\n"); got != want {
			t.Errorf("%q: systemd says %s, we %s", path, got, want)
		}
	}
}

func FuzzUnitNameFromPath(f *testing.F) {
	for path := range unitNames {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		name, ok := strings.CutSuffix(UnitNameFromPath("/"+path, "automount"), ".automount")
		if !ok || name == "" || strings.ContainsAny(name, "/ \n\t\x00") {
			t.Errorf("%q: %q", path, name)
		}
	})
}
