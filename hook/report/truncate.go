package report

import (
	"errors"
	"fmt"
	"strings"
)

// What is said about a container goes to logs and to files in memory, and the
// container decides how much there is to say.
const (
	maxText           = 2048 // bytes of one text
	maxWarnings       = 256  // of a report
	maxListed         = 16   // names in a log
	maxReportedCovers = 32   // of a mount
	// maxReport is how much text of mounts a report has before that is cut to
	// maxShort, in bytes.
	maxReport = 4 << 20
	MaxShort  = 100
)

// Truncate cuts a text that is too long, and says how much of it is missing.
func Truncate(text string) string { return TruncateTo(text, maxText) }

// TruncateTo is Truncate with a size, in bytes.
func TruncateTo(text string, size int) string {
	if len(text) <= size {
		return text
	}
	return fmt.Sprintf("%s ... (%d bytes more)", strings.ToValidUTF8(text[:size], ""), len(text)-size)
}

// TruncateWarnings returns a warn that gets truncated errors.
func TruncateWarnings(warn func(error)) func(error) {
	return func(err error) {
		if text := err.Error(); len(text) > maxText {
			err = errors.New(Truncate(text))
		}
		warn(err)
	}
}

// CollectWarnings returns a warn that also adds each warning to a list.
func CollectWarnings(warn func(error), list *[]string) func(error) {
	return func(err error) {
		if len(*list) < maxWarnings {
			*list = append(*list, Truncate(err.Error()))
		}
		warn(err)
	}
}

// Listed are the paths for a log, quoted, the first few if they are many.
func (u UnrepairedMounts) Listed() string { return Listed(u.Paths) }

// Listed are names for a log, quoted, the first few if they are many.
func Listed(names []string) string {
	text := Truncate(fmt.Sprintf("%q", names[:min(len(names), maxListed)]))
	if more := len(names) - maxListed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
