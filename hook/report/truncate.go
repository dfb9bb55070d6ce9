package report

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of reports, which are files in memory, and of logs: a container can have any
// number of mounts with paths of any length.
const (
	maxText           = 2048 // bytes of a text
	maxWarnings       = 256  // warnings of a report
	maxListed         = 16   // names in a log line
	maxReportedCovers = 32   // covers of a mount
	// maxReport is the size of the texts about mounts, in bytes, after which further
	// texts are truncated to MaxShort.
	maxReport = 4 << 20
	// MaxShort is the length of a short text, in bytes.
	MaxShort = 100
)

// truncate truncates a text to 2048 bytes, and appends how many are missing.
func truncate(text string) string { return TruncateTo(text, maxText) }

// TruncateTo truncates a text to a size, in bytes, and appends how many are missing.
func TruncateTo(text string, size int) string {
	if len(text) <= size {
		return text
	}
	return fmt.Sprintf("%s ... (%d bytes more)", strings.ToValidUTF8(text[:size], ""), len(text)-size)
}

// TruncateWarnings returns a function that calls warn with the truncated error.
func TruncateWarnings(warn func(error)) func(error) {
	return func(err error) {
		if text := err.Error(); len(text) > maxText {
			err = errors.New(truncate(text))
		}
		warn(err)
	}
}

// CollectWarnings returns a function that calls warn, and adds the warning to a list of
// limited length.
func CollectWarnings(warn func(error), list *[]string) func(error) {
	return func(err error) {
		if len(*list) < maxWarnings {
			*list = append(*list, truncate(err.Error()))
		}
		warn(err)
	}
}

// Listed returns the paths for a log line, as the function [Listed].
func (u UnrepairedMounts) Listed() string { return Listed(u.Paths) }

// Listed returns names for a log line: the first 16 of them, quoted.
func Listed(names []string) string {
	text := truncate(fmt.Sprintf("%q", names[:min(len(names), maxListed)]))
	if more := len(names) - maxListed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
