package main

import (
	"flag"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/cmd/internal/manual"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
)

//go:generate go test -run ^TestPapers$ . -update

var update = flag.Bool("update", false, "write the manual pages and the completions")

// described is the program as the manual describes it.
func described() *manual.Program {
	p := &manual.Program{Name: programName, Statuses: otherStatuses}
	for _, c := range commands() {
		d := manual.Command{
			Name: c.name, Synopsis: c.synopsis(), Summary: c.summary, Text: c.text, Container: c.arguments != "",
		}
		c.visit(func(o option) {
			m := manual.Option{Name: o.name, Value: o.value, Usage: o.usage}
			switch v := c.options.Lookup(o.name).Value.(type) {
			case choice:
				m.Words = v.words
			case *engines:
				m.Words = engineWords
			}
			d.Options = append(d.Options, m)
		})
		p.Commands = append(p.Commands, d)
	}
	return p
}

// TestPapers: the manual pages and the completions are those of the commands. With
// -update it writes them.
func TestPapers(t *testing.T) {
	p := described()
	for _, name := range []string{"autofs-restore-hook.8", "autofs-restore-hook.conf.5"} {
		page, err := p.Page(name)
		if err != nil {
			t.Fatal(err)
		}
		manual.Check(t, "../../packaging/man/"+name, page, *update)
	}
	for name, text := range map[string][]byte{
		"autofs-restore-hook.bash": p.Bash(listVerb), "_autofs-restore-hook": p.Zsh(listVerb), "autofs-restore-hook.fish": p.Fish(listVerb),
	} {
		manual.Check(t, "../../packaging/completion/"+name, text, *update)
	}
}

// TestOutcomes: the manual page explains every outcome.
func TestOutcomes(t *testing.T) {
	page, err := described().Page("autofs-restore-hook.8")
	if err != nil {
		t.Fatal(err)
	}
	for _, outcome := range []string{
		string(plan.Healthy), string(plan.Preserved), string(plan.Reexecuted), string(plan.Reloaded), string(plan.Restarted), string(plan.Unrepaired),
		string(report.Repaired), string(report.NothingToDo), string(report.Partial), string(report.Failed), string(report.Planned),
	} {
		if !strings.Contains(string(page), `\fB`+strings.ReplaceAll(outcome, "-", `\-`)+`\f`) {
			t.Errorf("no outcome %s", outcome)
		}
	}
}

// TestBashCompletion calls the function that bash calls.
func TestBashCompletion(t *testing.T) {
	const script = `program() { echo web shop; }; alias autofs-restore-hook=program; shopt -s expand_aliases
. ../../packaging/completion/autofs-restore-hook.bash
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _autofs_restore_hook; echo "${COMPREPLY[*]}"`
	for words, want := range map[string]string{
		"in":                         "inspect install",
		"--v":                        "--version",
		"help un":                    "uninstall",
		"repair --str":               "--strategy",
		"repair --strategy re":       "reexec restart",
		"repair w":                   "web",
		"inspect --json s":           "shop",
		"install --engine po":        "podman",
		"install --engine criu,po":   "criu,podman",
		"uninstall --engine a,b,con": "a,b,containerd",
		"uninstall --f":              "",
		"doctor --":                  "--json --help",
	} {
		args := append([]string{"--norc", "-c", script, "bash", programName}, strings.Split(words, " ")...)
		if r := (call{}).with(t, "bash", args...); strings.TrimSpace(r.out) != want || r.errors != "" {
			t.Errorf("%s: %q, want %q\n%s", words, r.out, want, r.errors)
		}
	}
}
