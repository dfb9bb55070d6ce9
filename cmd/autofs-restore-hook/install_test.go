package main

import (
	"encoding/json"
	"testing"
)

func TestInstallUsage(t *testing.T) {
	for name, test := range map[string]struct {
		args      []string
		status    int
		out, errs string
	}{
		"an argument":       {[]string{"install", "now"}, 2, "", `unknown argument "now"`},
		"an option":         {[]string{"install", "--now"}, 2, "", "-now"},
		"help":              {[]string{"uninstall", "--help"}, 2, "", firstLine},
		"an engine":         {[]string{"install", "--engine", "docker"}, 2, "", `engine "docker"`},
		"a list, an engine": {[]string{"uninstall", "--engine", "podman,"}, 2, "", `engine ""`},
		"no root":           {[]string{"install", "--root", ""}, 2, "", "must not be empty"},
		"no such root":      {[]string{"install", "--root", "/nonexistent"}, 1, "", "/nonexistent: no such file"},
		"a file for root":   {[]string{"uninstall", "--root", "/proc/version"}, 1, "", "not a directory"},
		"a prefix":          {[]string{"install", "--prefix", "/a b"}, 1, "", `prefix "/a b"`},
		"doctor, more":      {[]string{"doctor", "now"}, 2, "", firstLine},
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
		Checks  []struct{ Name, Status, Text string }
	}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || got.Version != "v1-test" || len(got.Checks) < 5 || r.errors != "" {
		t.Errorf("%d %v %+v %s", r.status, err, got, r.errors)
	}
}
