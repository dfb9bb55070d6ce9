package install

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

const goodCRIU = "Version: 4.1.1"

// TestForceIrmap installs and removes the option with and after the rest, in files
// with other lines and without.
func TestForceIrmap(t *testing.T) {
	for name, before := range map[string]string{
		"no file": "", "other lines": "# ours\nlog-level 4\n", "no newline": "log-level 4", "a script": "action-script /usr/bin/other\n",
	} {
		for _, later := range []bool{false, true} {
			files := map[string]string{}
			if before != "" {
				files[CRIUFile] = before
			}
			root := machine(t, goodCRIU, files)
			o := Options{Root: root, Program: program, ForceIrmap: !later}
			do(t, Install, o)
			if later {
				o.ForceIrmap = true
				do(t, Install, o)
			}
			text := read(t, root+CRIUFile)
			if !hasForceIrmap(text) || len(ActionScripts(text)) == 0 || !strings.HasPrefix(text, before) {
				t.Errorf("%s, later %t: %q", name, later, text)
			}
			if r := do(t, Install, o); len(r.Changes) > 0 {
				t.Errorf("%s, later %t: again: %+v", name, later, r.Changes)
			}
			o.ForceIrmap = false
			if r := do(t, Install, o); len(r.Changes) > 0 || !hasForceIrmap(read(t, root+CRIUFile)) {
				t.Errorf("%s, later %t: an installation without the option changes %+v", name, later, r.Changes)
			}
			do(t, Uninstall, Options{Root: root})
			data, err := os.ReadFile(root + CRIUFile)
			if before == "" && !errors.Is(err, fs.ErrNotExist) || before != "" && string(data) != before {
				t.Errorf("%s, later %t: left %q, %v; want %q", name, later, data, err, before)
			}
		}
	}
}

// TestForceIrmapKept keeps an option that Install did not write.
func TestForceIrmapKept(t *testing.T) {
	root := machine(t, goodCRIU, map[string]string{CRIUFile: "force-irmap\n"})
	do(t, Install, Options{Root: root, Program: program, ForceIrmap: true})
	do(t, Uninstall, Options{Root: root})
	if text := read(t, root+CRIUFile); text != "force-irmap\n" {
		t.Errorf("left %q", text)
	}
}

// TestForceIrmapAlone refuses the option without CRIU among the engines.
func TestForceIrmapAlone(t *testing.T) {
	root := machine(t, goodCRIU, nil)
	_, err := Install(context.Background(), Options{Root: root, Program: program, ForceIrmap: true, Engines: []Engine{Podman}})
	if !errors.Is(err, ErrNothingInstalled) {
		t.Errorf("for podman only: %v", err)
	}
}

func TestInspectCRIU(t *testing.T) {
	for _, test := range []struct {
		version, conf string
		want          CRIUInfo
	}{
		{"", "", CRIUInfo{}},
		{goodCRIU, "", CRIUInfo{Version: Version{4, 1, 1}, Found: true}},
		{goodCRIU, "  force-irmap # yes\n", CRIUInfo{Version: Version{4, 1, 1}, Found: true, ForceIrmap: true}},
		{goodCRIU, "# force-irmap\nforce-irmapx\n", CRIUInfo{Version: Version{4, 1, 1}, Found: true}},
	} {
		files := map[string]string{}
		if test.conf != "" {
			files[CRIUFile] = test.conf
		}
		got, err := InspectCRIU(context.Background(), machine(t, test.version, files))
		if err != nil || got != test.want {
			t.Errorf("%q, %q: %+v, %v", test.version, test.conf, got, err)
		}
	}
}

func do(t *testing.T, f func(context.Context, Options) (*Result, error), o Options) *Result {
	t.Helper()
	r, err := f(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
