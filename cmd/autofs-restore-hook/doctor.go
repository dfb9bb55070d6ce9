package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/doctor"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/textwrap"
)

// exitUnknown is doctor's exit status where it could not look, and for wrong usage. Its
// statuses are those of monitoring plugins: 0 to 2 are verdicts.
const exitUnknown = 3

func doctorCommand() *command {
	c := newCommand("doctor", "", "tell whether the program will be called on this machine, and work",
		`Tell whether the program will be called on this machine, and what it will be able to do: OK, WARN or FAIL for each thing that was looked at, with the next step.

Exit status: 0 all is well, 1 warnings, 2 failures, 3 wrong usage, or it could not look. Monitoring can call it as a Nagios plugin.`)
	c.misuse = exitUnknown
	asJSON := jsonOption(c)
	c.run = noArguments(func() int {
		status, err := examine(*asJSON)
		if err != nil {
			c.complain(err)
			return exitUnknown
		}
		return status
	})
	return c
}

// examine looks at the machine and prints the verdicts. The exit status is that of
// the worst one.
func examine(asJSON bool) (int, error) {
	facts, err := doctor.Gather(context.Background(), versionNumber, journal.Directory+"/reports")
	if err != nil {
		return 0, err
	}
	checks := doctor.Judge(facts)
	if asJSON {
		err = printJSON(struct {
			Version string         `json:"version"`
			Checks  []doctor.Check `json:"checks"`
		}{versionNumber, checks})
	} else {
		_, err = os.Stdout.WriteString(verdicts(checks))
	}
	if err != nil {
		return 0, fmt.Errorf("write the verdicts: %w", err)
	}
	return doctor.ExitStatus(checks), nil
}

// verdictsWidth is how many columns the verdicts have, where the words allow.
const verdictsWidth = 100

// verdicts is the answer for a person.
func verdicts(checks []doctor.Check) string {
	var b strings.Builder
	for _, c := range checks {
		head := fmt.Sprintf("%-4s  %-19s  ", c.Status, c.Name)
		indent := strings.Repeat(" ", len(head))
		text := textwrap.Wrap(c.Text, verdictsWidth, indent)
		b.WriteString(head + strings.TrimPrefix(text, indent))
		if c.Next != "" {
			b.WriteString(textwrap.Wrap("next: "+c.Next, verdictsWidth, indent))
		}
	}
	return b.String()
}
