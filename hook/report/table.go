package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Table writes the report as a table for people. Names from the container are quoted if
// they have unprintable characters.
func (r *Report) Table(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(r.Mounts) > 0 {
		fmt.Fprintln(t, "PATH\tNAMESPACE\tTYPE\tMASTER\tDEVICE\tCOVERED BY\tOUTCOME\tREASON")
	}
	for _, m := range r.Mounts {
		device := m.DeviceNow
		if m.DeviceBefore != "" && m.DeviceBefore != m.DeviceNow {
			device = m.DeviceBefore + " → " + m.DeviceNow
		}
		master := m.Master.Kind
		if m.Master.PID > 0 {
			master += " " + strconv.Itoa(m.Master.PID)
		}
		if m.Master.Unit != "" {
			master += " (" + printable(m.Master.Unit) + ")"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(m.Path), m.MountNamespace, m.Type, master,
			device, printable(strings.Join(m.CoveredBy, ", ")), m.Outcome, printable(m.Reason))
	}
	for _, w := range r.Waiting {
		fmt.Fprintf(t, "process %d (%s) waits on an automount at %s\n", w.PID, printable(w.Command), printable(w.Path))
	}
	fmt.Fprintln(t, printable(r.Summary()))
	if r.Checkpoint != nil && len(r.Checkpoint) == 0 {
		fmt.Fprintln(t, "checkpoint: no problem for CRIU was found")
	}
	for _, p := range r.Checkpoint {
		when := p.When
		if when == "restore" {
			when = "restore of a checkpoint"
		}
		fmt.Fprintf(t, "%s: %s; next: %s\n", when, printable(p.What), printable(p.Next))
	}
	if r.Planned {
		for _, w := range r.Warnings {
			fmt.Fprintf(t, "warning: %s\n", printable(w))
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

// printable returns the text, quoted if it has unprintable characters, such as a control
// sequence or a newline.
func printable(s string) string {
	if quoted := strconv.Quote(s); quoted[1:len(quoted)-1] != s && strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return quoted
	}
	return s
}
