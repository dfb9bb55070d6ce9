// Package textwrap breaks text for a terminal into lines.
package textwrap

import (
	"strings"
	"unicode/utf8"
)

// Wrap breaks each line of a text so that it fits into the columns, with an
// indentation. A word that is too long has a line of its own. Lines that begin with a
// blank are left as they are. The result ends with a newline.
func Wrap(text string, columns int, indent string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || line[0] == ' ' {
			b.WriteString(strings.TrimRight(indent+line, " ") + "\n")
			continue
		}
		used := 0
		for word := range strings.FieldsSeq(line) {
			length := utf8.RuneCountInString(word)
			switch {
			case used == 0:
				b.WriteString(indent)
				used = len(indent)
			case used+1+length > columns:
				b.WriteString("\n" + indent)
				used = len(indent)
			default:
				b.WriteByte(' ')
				used++
			}
			b.WriteString(word)
			used += length
		}
		b.WriteByte('\n')
	}
	return b.String()
}
