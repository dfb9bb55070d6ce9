package hook

import (
	"errors"
	"fmt"
	"strings"
)

// What is said about a container goes to logs and to files in memory, and the
// container decides how much there is to say.
const (
	maxText     = 2048 // bytes of one text
	maxWarnings = 256  // of a report
	maxPaths    = 16   // of mounts with the same reason, in a log
	maxListed   = 32   // covers of a mount
	// maxReport is how much text of mounts a report has before that is cut to
	// maxShort, in bytes.
	maxReport = 4 << 20
	maxShort  = 100
)

// brief cuts a text that is too long, and says how much of it is missing.
func brief(text string) string { return cut(text, maxText) }

func cut(text string, size int) string {
	if len(text) <= size {
		return text
	}
	return fmt.Sprintf("%s ... (%d bytes more)", strings.ToValidUTF8(text[:size], ""), len(text)-size)
}

// briefly is a warn that gets brief errors.
func briefly(warn func(error)) func(error) {
	return func(err error) {
		if text := err.Error(); len(text) > maxText {
			err = errors.New(brief(text))
		}
		warn(err)
	}
}

// collect makes a Warn that also notes each warning.
func collect(warn func(error), notes *[]string) func(error) {
	return func(err error) {
		if len(*notes) < maxWarnings {
			*notes = append(*notes, brief(err.Error()))
		}
		warn(err)
	}
}

// Listed are the paths for a log, quoted, the first few if they are many.
func (u UnrepairedMounts) Listed() string {
	if len(u.Paths) <= maxPaths {
		return brief(fmt.Sprintf("%q", u.Paths))
	}
	return fmt.Sprintf("%s and %d more", brief(fmt.Sprintf("%q", u.Paths[:maxPaths])), len(u.Paths)-maxPaths)
}
