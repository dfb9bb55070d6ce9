package main

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
)

// nobody is a process number that the kernel never gives (pid_max is at most 2^22).
const nobody = "4194305"

const firstLine = "autofs-restore-hook makes automounts work again"

func TestUsage(t *testing.T) {
	for name, test := range map[string]struct {
		args      []string
		status    int
		out, errs string
	}{
		"nothing":           {nil, 2, "", firstLine},
		"an empty word":     {[]string{""}, 2, "", `unknown command ""`},
		"unknown":           {[]string{"mend", "1"}, 2, "", `unknown command "mend"`},
		"unknown option":    {[]string{"--mend"}, 2, "", `unknown command "--mend"`},
		"help":              {[]string{"help"}, 0, firstLine, ""},
		"--help":            {[]string{"--help"}, 0, firstLine, ""},
		"-h":                {[]string{"-h"}, 0, firstLine, ""},
		"version":           {[]string{"version"}, 0, "autofs-restore-hook v1-test (" + runtime.Version() + ", " + runtime.GOARCH + ")\n", ""},
		"--version":         {[]string{"--version"}, 0, "autofs-restore-hook v1-test (", ""},
		"version, more":     {[]string{"version", "1"}, 2, "", firstLine},
		"version, twice":    {[]string{"version", "--json", "--json"}, 2, "", firstLine},
		"inspect what":      {[]string{"inspect"}, 2, "", "inspect: want one argument"},
		"repair what":       {[]string{"repair"}, 2, "", "repair: want one argument"},
		"inspect two":       {[]string{"inspect", "1", "2"}, 2, "", "want one argument"},
		"inspect a name":    {[]string{"inspect", "web"}, 2, "", `"web": want one argument`},
		"inspect 0":         {[]string{"inspect", "0"}, 2, "", `"0"`},
		"repair a negative": {[]string{"repair", "--", "-1"}, 2, "", `"-1"`},
		"repair too large":  {[]string{"repair", "99999999999999999999"}, 2, "", "want one argument"},
		"inspect, strategy": {[]string{"inspect", "--strategy", "auto", nobody}, 2, "", "-strategy"},
		"repair, strategy":  {[]string{"repair", "--strategy", "gently", nobody}, 2, "", `strategy "gently"`},
		"inspect nobody":    {[]string{"inspect", nobody}, 2, "process " + nobody, "no such process"},
		"repair nobody":     {[]string{"repair", nobody}, 2, "process " + nobody, "no such process"},
		"hold files":        {[]string{"hold-files"}, 1, "", ""},
		"hold, no number":   {[]string{"hold-files", "x"}, 1, "", ""},
		"hold, no time":     {[]string{"hold-files", "0"}, 1, "", ""},
		"hold, two":         {[]string{"hold-files", "1", "2"}, 1, "", ""},
		"watch":             {[]string{"watch-restore"}, 2, "", "want three arguments"},
		"watch, two":        {[]string{"watch-restore", "1-2", "3-4"}, 2, "", "want three arguments"},
		"watch, no start":   {[]string{"watch-restore", "1", "3-4", "c1"}, 2, "", "want a process number and a start time"},
		"watch, no process": {[]string{"watch-restore", "1-2", "x-4", "c1"}, 2, "", "want a process number and a start time"},
		"watch nobody":      {[]string{"watch-restore", nobody + "-2", nobody + "-4", "c1"}, 0, "", "no such process"},
	} {
		call{args: test.args}.run(t).expect(t, name, test.status, test.out, test.errs)
	}
}

func TestVersionJSON(t *testing.T) {
	r := call{args: []string{"version", "--json"}}.run(t)
	r.expect(t, "version", 0, "{", "")
	var got map[string]string
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || len(got) != 3 ||
		got["version"] != "v1-test" || got["go"] != runtime.Version() || got["architecture"] != runtime.GOARCH {
		t.Errorf("%v, %v", got, err)
	}
}

// TestReportOfNobody: also a failure is one JSON report.
func TestReportOfNobody(t *testing.T) {
	for _, name := range []string{"inspect", "repair"} {
		r := call{args: []string{name, nobody, "--json"}}.run(t)
		r.expect(t, name, 2, "{", "no such process")
		var report hook.Report
		if err := json.Unmarshal([]byte(r.out), &report); err != nil || report.Outcome != hook.Failed || report.Mounts == nil ||
			report.Trigger != "command:"+name || !strings.Contains(report.Error, "no such process") {
			t.Errorf("%s: %+v, %v", name, report, err)
		}
	}
}
