package main

import (
	"bytes"
	"errors"
	"flag"
	"regexp"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/cmd/internal/manual"
)

//go:generate go test -run ^TestPapers$ . -update

var update = flag.Bool("update", false, "write the manual page")

// help is the form of package flag: an option with a placeholder, and its usage.
var help = regexp.MustCompile(`(?m)^  -(\S+)(?: (\S+))?\n    \t(.+)$`)

// TestPapers: the manual page has the options of the program. With -update it writes
// the page.
func TestPapers(t *testing.T) {
	var text bytes.Buffer
	if _, err := parse([]string{"-help"}, &text); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	p := &manual.Program{Name: "autofs-restore-agent"}
	for _, m := range help.FindAllStringSubmatch(text.String(), -1) {
		p.Options = append(p.Options, manual.Option{Name: m[1], Value: m[2], Usage: m[3]})
	}
	if len(p.Options) < 10 {
		t.Fatalf("%d options in\n%s", len(p.Options), text.String())
	}
	page, err := p.Page("autofs-restore-agent.8")
	if err != nil {
		t.Fatal(err)
	}
	manual.Check(t, "../../packaging/man/autofs-restore-agent.8", page, *update)
}
