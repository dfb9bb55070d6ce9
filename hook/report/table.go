package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/textwrap"
)

const (
	// tableWidth is the width of the table, in columns.
	tableWidth = 100
	// tableRow is the format of a row.
	tableRow = "  %-10s  %-8s  %-15s  %-15s  %s\n"
)

// Table writes the report as a table for people: a row for each mount below its mount
// namespace, followed by its unit, covers and reason. Names from the container are quoted
// if they have unprintable characters.
func (r *Report) Table(out io.Writer) error {
	var b strings.Builder
	namespace := uint64(0)
	for i, m := range r.Mounts {
		if i == 0 || m.MountNamespace != namespace {
			namespace = m.MountNamespace
			fmt.Fprintf(&b, "mount namespace %d\n", namespace)
			fmt.Fprintf(&b, tableRow, "OUTCOME", "TYPE", "DEVICE", "MASTER", "PATH")
		}
		m.row(&b)
	}
	for _, w := range r.Waiting {
		line(&b, fmt.Sprintf("process %d (%s) waits on an automount at %s", w.PID, printable(w.Command), printable(w.Path)))
	}
	line(&b, printable(r.Summary()))
	if r.Checkpoint != nil && len(r.Checkpoint) == 0 {
		line(&b, "checkpoint: no problem for CRIU was found")
	}
	for _, p := range r.Checkpoint {
		when := p.When
		if when == "restore" {
			when = "restore of a checkpoint"
		}
		line(&b, fmt.Sprintf("%s: %s", when, printable(p.What)))
		line(&b, "  next: "+printable(p.Next))
	}
	if _, err := io.WriteString(out, b.String()); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

// line writes a text, wrapped to the width of the table. Further lines are indented.
func line(b *strings.Builder, text string) {
	body := strings.TrimLeft(text, " ")
	indent := text[:len(text)-len(body)] + "  "
	wrapped := textwrap.Wrap(body, tableWidth, indent)
	b.WriteString(strings.TrimPrefix(wrapped, "  "))
}

// row writes the row of a mount and its details.
func (m *Mount) row(b *strings.Builder) {
	device := m.DeviceNow
	if m.DeviceBefore != "" && m.DeviceBefore != m.DeviceNow {
		device = m.DeviceBefore + " → " + m.DeviceNow
	}
	master := m.Master.Kind
	if m.Master.PID > 0 {
		master += " " + strconv.Itoa(m.Master.PID)
	}
	fmt.Fprintf(b, tableRow, m.Outcome, m.Type, device, master, printable(m.Path))
	var details []string
	if m.Outcome != plan.Healthy && m.Master.Unit != "" {
		details = append(details, "unit "+printable(m.Master.Unit))
	}
	if len(m.CoveredBy) > 0 {
		details = append(details, "covered by "+printable(strings.Join(m.CoveredBy, ", ")))
	}
	if m.Reason != "" {
		details = append(details, printable(m.Reason))
	}
	if len(details) > 0 {
		b.WriteString(textwrap.Wrap(strings.Join(details, "; "), tableWidth, strings.Repeat(" ", 14)))
	}
}

// printable returns the text, quoted if it has unprintable characters, such as a control
// sequence or a newline.
func printable(s string) string {
	if quoted := strconv.Quote(s); quoted[1:len(quoted)-1] != s && strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return quoted
	}
	return s
}
