package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/textwrap"
)

const programName = "autofs-restore-hook"

// command is one of the program's commands. Its help, its part of the manual page and
// the completions are made from it (papers_test.go).
type command struct {
	name      string
	arguments string // as the synopsis names them, "" for none
	summary   string // for the list of commands
	text      string // what the options do not say
	options   *pflag.FlagSet
	// misuse is the exit status of wrong usage.
	misuse int
	// run gets the words that are no options. Its error is one of usage.
	run func(words []string) (status int, err error)
}

func newCommand(name, arguments, summary, text string) *command {
	c := &command{name: name, arguments: arguments, summary: summary, text: text, misuse: exitUsage}
	c.options = pflag.NewFlagSet(name, pflag.ContinueOnError)
	c.options.SortFlags = false
	c.options.Usage = func() {} // start writes it
	return c
}

// choice is an option's value that is one of a few words.
type choice struct {
	words []string
	value *string
}

func (c choice) String() string { return *c.value }
func (c choice) Type() string   { return strings.Join(c.words, "|") }

func (c choice) Set(word string) error {
	if !slices.Contains(c.words, word) {
		last := len(c.words) - 1
		return fmt.Errorf("want %s or %s", strings.Join(c.words[:last], ", "), c.words[last])
	}
	*c.value = word
	return nil
}

// start reads the options and runs the command.
func (c *command) start(args []string) int {
	err := c.options.Parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		fmt.Print(c.help())
		return exitDone
	}
	status := c.misuse
	if err == nil {
		status, err = c.run(c.options.Args())
	}
	if err != nil {
		c.complain(err)
		fmt.Fprintf(os.Stderr, "See \"%s %s --help\".\n", programName, c.name)
		return c.misuse
	}
	return status
}

// complain writes an error for a person.
func (c *command) complain(err error) {
	fmt.Fprintf(os.Stderr, "%s %s: %v\n", programName, c.name, err)
}

var errNoArguments = errors.New("want no argument")

// noArguments makes a command that has options only.
func noArguments(run func() int) func([]string) (int, error) {
	return func(words []string) (int, error) {
		if len(words) > 0 {
			return 0, fmt.Errorf("%q: %w", words[0], errNoArguments)
		}
		return run(), nil
	}
}

// width is how many columns help has.
const width = 80

func (c *command) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s\n\n%s", c.synopsis(), textwrap.Wrap(c.text, width, ""))
	b.WriteString("\nOptions:\n")
	c.visit(func(o option) { writeItem(&b, "--"+o.name+space(o.value), o.usage) })
	writeItem(&b, "--help", "show this help")
	return b.String()
}

func (c *command) synopsis() string {
	return programName + " " + c.name + " [OPTION]..." + space(c.arguments)
}

func space(word string) string {
	if word == "" {
		return ""
	}
	return " " + word
}

// option is one of a command's options; value is "" where it takes none.
type option struct{ name, value, usage string }

func (c *command) visit(each func(option)) {
	c.options.VisitAll(func(f *pflag.Flag) {
		value, usage := pflag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" {
			usage += " (default " + f.DefValue + ")"
		}
		each(option{f.Name, value, usage})
	})
}

// itemWidth is where the text of a list begins.
const itemWidth = 22

// writeItem writes one line of a list, or more.
func writeItem(w io.Writer, name, text string) {
	name = "  " + name
	if len(name) > itemWidth-2 {
		fmt.Fprintln(w, name)
		name = ""
	}
	text = textwrap.Wrap(text, width, strings.Repeat(" ", itemWidth))
	fmt.Fprintf(w, "%-*s%s", itemWidth, name, text[itemWidth:])
}

// commands are those for people.
func commands() []*command {
	return []*command{
		inspectCommand(), repairCommand(), installCommand("install"), installCommand("uninstall"), doctorCommand(), versionCommand(),
	}
}

// find returns the command with the name, nil if there is none.
func find(name string) *command {
	for _, c := range commands() {
		if c.name == name {
			return c
		}
	}
	return nil
}

const (
	aboutProgram  = programName + " makes automounts work again in a container that CRIU has restored."
	aboutStatuses = "Exit status: 0 done or nothing to do, 1 failed, 2 wrong usage or unreadable input, 3 partly repaired."
	// otherStatuses are those of doctor and of calls by programs.
	otherStatuses = `Of doctor: 0 all is well, 1 warnings, 2 failures, 3 wrong usage. As OCI hook and as action script always 0, so that a failed repair does not fail the restore, unless /etc/autofs-restore-hook.conf has "strict = true".`
)

// usage is the help on the program as a whole.
func usage() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s COMMAND [OPTION]...\n\n%s\nCommands:\n", programName, textwrap.Wrap(aboutProgram, width, ""))
	for _, c := range commands() {
		arguments, _, _ := strings.Cut(c.arguments, "|")
		writeItem(&b, c.name+space(arguments), c.summary)
	}
	writeItem(&b, "help [COMMAND]", "show this help, or that of a command")
	b.WriteString("\nCalled by programs:\n")
	writeItem(&b, programName, "as a CRIU action script (environment variable CRTOOLS_SCRIPT_ACTION)")
	writeItem(&b, programName+" STAGE", "as an OCI hook, with the container state on standard input")
	fmt.Fprintf(&b, "\n%s\n%s", textwrap.Wrap(aboutStatuses+" "+otherStatuses, width, ""), textwrap.Wrap("The last report on each container is /run/autofs-restore-hook/reports/CONTAINER.json. See autofs-restore-hook(8).", width, ""))
	return b.String()
}

// help handles the command of that name.
func help(words []string) int {
	switch len(words) {
	case 0:
		fmt.Print(usage())
		return exitDone
	case 1:
		if c := find(words[0]); c != nil {
			fmt.Print(c.help())
			return exitDone
		}
	}
	fmt.Fprintf(os.Stderr, "%s help: %q: want the name of one command\n", programName, words)
	return exitUsage
}
