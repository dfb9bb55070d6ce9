package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/doctor"
)

func TestInstallUsage(t *testing.T) {
	for name, test := range map[string]struct {
		args      []string
		status    int
		out, errs string
	}{
		"an argument":       {[]string{"install", "now"}, 2, "", `"now": want no argument`},
		"an option":         {[]string{"install", "--now"}, 2, "", "-now"},
		"help":              {[]string{"uninstall", "--help"}, 0, "Usage: autofs-restore-hook uninstall", ""},
		"an engine":         {[]string{"install", "--engine", "docker"}, 2, "", `engine "docker"`},
		"a list, an engine": {[]string{"uninstall", "--engine", "podman,"}, 2, "", `engine ""`},
		"no root":           {[]string{"install", "--root", ""}, 2, "", "must not be empty"},
		"no such root":      {[]string{"install", "--root", "/nonexistent"}, 1, "", "/nonexistent: no such file"},
		"a file for root":   {[]string{"uninstall", "--root", "/proc/version"}, 1, "", "not a directory"},
		"a prefix":          {[]string{"install", "--prefix", "/a b"}, 1, "", `prefix "/a b"`},
		"doctor, more":      {[]string{"doctor", "now"}, 3, "", `doctor: "now": want no argument`},
	} {
		call{args: test.args}.run(t).expect(t, name, test.status, test.out, test.errs)
	}
}

func TestInstallNothing(t *testing.T) {
	root := t.TempDir()
	call{args: []string{"install", "--root", root}}.run(t).expect(t, "install", 1, "", "nothing was installed: no criu in /usr/local/sbin")
	call{args: []string{"uninstall", "--root", root}}.run(t).expect(t, "uninstall", 0, "nothing to change\n", "")
}

func TestDoctorJSON(t *testing.T) {
	r := call{args: []string{"doctor", "--json"}}.run(t)
	var got struct {
		Version string
		Checks  []struct{ ID, Name, Status, Text string }
	}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || got.Version != "v1-test" || len(got.Checks) < 5 || got.Checks[0].ID != "privileges" || r.errors != "" {
		t.Errorf("%d %v %+v %s", r.status, err, got, r.errors)
	}
}

func TestVerdicts(t *testing.T) {
	long := strings.Repeat("x", 2*verdictsWidth)
	text := verdicts([]doctor.Check{
		{Name: "cgroups", Status: doctor.OK, Text: "version 2"},
		{Name: "kernel feature", Status: doctor.Warn, Text: strings.Repeat("word ", 40) + "end", Next: "use a newer kernel"},
		{Name: "program", Status: doctor.Fail, Text: long + " is missing", Next: "install"},
	})
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if len(line) > verdictsWidth && !strings.Contains(line, long) || line != strings.TrimRight(line, " ") {
			t.Errorf("%d columns: %q", len(line), line)
		}
	}
	for _, want := range []string{"OK    cgroups              version 2\n", "WARN  kernel feature       word word", "\n" + strings.Repeat(" ", 27) + "next: use a newer kernel\nFAIL  "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
