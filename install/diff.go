package install

import (
	"fmt"
	"strings"
)

// context is how many unchanged lines a diff shows before and after a change.
const contextLines = 3

// diff shows a change in the unified format: one hunk from the first line that
// differs to the last.
func (c *change) diff(t *tree) string {
	name := t.show(c.path)
	if isProgram(c.after) || c.remove && isProgram(c.before.data) || c.mode == 0o755 {
		switch {
		case c.remove:
			return fmt.Sprintf("Program %s: removed\n", name)
		case c.before == nil:
			return fmt.Sprintf("Program %s: new, %d bytes\n", name, len(c.after))
		}
		return fmt.Sprintf("Program %s: %d bytes become %d\n", name, len(c.before.data), len(c.after))
	}
	from, to := name, name
	var before, after string
	if c.before == nil {
		from = "/dev/null"
	} else {
		before = string(c.before.data)
	}
	if c.remove {
		to = "/dev/null"
	} else {
		after = string(c.after)
	}
	return "--- " + from + "\n+++ " + to + "\n" + hunk(before, after)
}

// hunk is the part of a diff that shows lines.
func hunk(before, after string) string {
	a, b := lines(before), lines(after)
	start := 0
	for start < len(a) && start < len(b) && a[start] == b[start] {
		start++
	}
	end := 0
	for end < len(a)-start && end < len(b)-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	first, last := max(start-contextLines, 0), max(end-contextLines, 0)
	var out strings.Builder
	fmt.Fprintf(&out, "@@ -%s +%s @@\n", span(first, len(a)-last), span(first, len(b)-last))
	add := func(sign string, list []string) {
		for _, line := range list {
			out.WriteString(sign + line)
			if !strings.HasSuffix(line, "\n") {
				out.WriteString("\n\\ No newline at end of file\n")
			}
		}
	}
	add(" ", a[first:start])
	add("-", a[start:len(a)-end])
	add("+", b[start:len(b)-end])
	add(" ", a[len(a)-end:len(a)-last])
	return out.String()
}

// span is the range of lines of a hunk; an empty one names the line before it.
func span(first, end int) string {
	if end == first {
		return fmt.Sprintf("%d,0", first)
	}
	return fmt.Sprintf("%d,%d", first+1, end-first)
}

func lines(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		list = append(list, line)
	}
	return list
}
