package main

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
)

// noProcess is a process number that the kernel never gives (pid_max is at most 2^22).
const noProcess = "4194305"

const firstLine = "autofs-restore-hook makes automounts work again"

func TestUsage(t *testing.T) {
	for name, test := range map[string]struct {
		args      []string
		status    int
		out, errs string
	}{
		"nothing":           {nil, 2, "", firstLine},
		"an empty word":     {[]string{""}, 2, "", `unknown command ""`},
		"unknown":           {[]string{"fix", "1"}, 2, "", `unknown command "fix"`},
		"unknown option":    {[]string{"--fix"}, 2, "", `unknown command "--fix"`},
		"help":              {[]string{"help"}, 0, firstLine, ""},
		"--help":            {[]string{"--help"}, 0, firstLine, ""},
		"-h":                {[]string{"-h"}, 0, firstLine, ""},
		"help of a command": {[]string{"help", "repair"}, 0, "Usage: autofs-restore-hook repair [OPTION]... CONTAINER|--all\n", ""},
		"help, unknown":     {[]string{"help", "fix"}, 2, "", "want the name of one command"},
		"help, two":         {[]string{"help", "inspect", "repair"}, 2, "", "want the name of one command"},
		"version":           {[]string{"version"}, 0, "autofs-restore-hook v1-test (" + runtime.Version() + ", " + runtime.GOARCH + ")\n", ""},
		"--version":         {[]string{"--version"}, 0, "autofs-restore-hook v1-test (", ""},
		"-V":                {[]string{"-V"}, 0, "autofs-restore-hook v1-test (", ""},
		"version, more":     {[]string{"version", "1"}, 2, "", `version: "1": want no argument`},
		"inspect what":      {[]string{"inspect"}, 2, "", "inspect: want one container, or --all"},
		"repair what":       {[]string{"repair"}, 2, "", "repair: want one container, or --all"},
		"inspect two":       {[]string{"inspect", "1", "2"}, 2, "", "want one container, or --all"},
		"one and all":       {[]string{"repair", "--all", "1"}, 2, "", "want one container, or --all"},
		"inspect a name":    {[]string{"inspect", "no-such-container"}, 2, "", `"no-such-container": no running container`},
		"inspect no name":   {[]string{"inspect", ""}, 2, "", `"": no running container`},
		"inspect 0":         {[]string{"inspect", "0"}, 2, "", `process "0": a process number must be positive`},
		"repair a negative": {[]string{"repair", "--", "-1"}, 2, "", `process "-1"`},
		"repair too large":  {[]string{"repair", "99999999999999999999"}, 2, "", "no running container"},
		"inspect, strategy": {[]string{"inspect", "--strategy", "auto", noProcess}, 2, "", "--strategy"},
		"repair, strategy":  {[]string{"repair", "--strategy", "gently", noProcess}, 2, "", `"gently" for "--strategy" flag: want auto, reexec or restart`},
		"no such process":   {[]string{"inspect", noProcess}, 2, "", "process " + noProcess + ": no such process"},
		"repair no process": {[]string{"repair", noProcess}, 2, "", "no such process"},
		"hold files":        {[]string{"hold-files"}, 1, "", ""},
		"hold, no number":   {[]string{"hold-files", "x"}, 1, "", ""},
		"hold, no time":     {[]string{"hold-files", "0"}, 1, "", ""},
		"hold, two":         {[]string{"hold-files", "1", "2"}, 1, "", ""},
		"watch":             {[]string{"watch-restore"}, 2, "", "want three arguments"},
		"watch, two":        {[]string{"watch-restore", "1-2", "3-4"}, 2, "", "want three arguments"},
		"watch, no start":   {[]string{"watch-restore", "1", "3-4", "c1"}, 2, "", "want a process number and a start time"},
		"watch, no number":  {[]string{"watch-restore", "1-2", "x-4", "c1"}, 2, "", "want a process number and a start time"},
		"watch no process":  {[]string{"watch-restore", noProcess + "-2", noProcess + "-4", "c1"}, 0, "", "no such process"},
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

// TestReportWithoutProcess: also a failure is one JSON report.
func TestReportWithoutProcess(t *testing.T) {
	for _, name := range []string{"inspect", "repair"} {
		r := call{args: []string{name, noProcess, "--json"}}.run(t)
		r.expect(t, name, 2, "{", "no such process")
		var rep report.Report
		if err := json.Unmarshal([]byte(r.out), &rep); err != nil || rep.Outcome != report.Failed || rep.Mounts == nil ||
			rep.Trigger != "command:"+name || !strings.Contains(rep.Error, "no such process") {
			t.Errorf("%s: %+v, %v", name, rep, err)
		}
	}
}

// TestHelp: each command has its own, in 80 columns, and on standard output.
func TestHelp(t *testing.T) {
	check := func(c call, first string) {
		t.Helper()
		r := c.run(t)
		r.expect(t, first, 0, first, "")
		for line := range strings.Lines(r.out) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > width {
				t.Errorf("%q: %d columns: %s", c.args, n, line)
			}
		}
		if !strings.HasPrefix(r.out, "Usage: "+first) {
			t.Errorf("%q:\n%s", c.args, r.out)
		}
	}
	check(call{args: []string{"--help"}}, "autofs-restore-hook COMMAND")
	for _, c := range commands() {
		for _, option := range []string{"--help", "-h"} {
			check(call{args: []string{c.name, option}}, "autofs-restore-hook "+c.name)
		}
		r := call{args: []string{c.name, "--no-such-option"}}.run(t)
		r.expect(t, c.name, c.misuse, "", c.name+": unknown flag: --no-such-option")
	}
}

// TestOnce: a command says an error once.
func TestOnce(t *testing.T) {
	for _, args := range [][]string{{"inspect", noProcess}, {"repair", noProcess}, {"repair", noProcess, "--json"}} {
		if r := (call{args: args}).run(t); strings.Count(r.errors, "no such process") != 1 || strings.Count(r.errors, "\n") != 1 {
			t.Errorf("%q:\n%s", args, r.errors)
		}
	}
}
