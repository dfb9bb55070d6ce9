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
)

// brief cuts a text that is too long, and says how much of it is missing.
func brief(text string) string {
	if len(text) <= maxText {
		return text
	}
	return fmt.Sprintf("%s ... (%d bytes more)", strings.ToValidUTF8(text[:maxText], ""), len(text)-maxText)
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
		return fmt.Sprintf("%q", u.Paths)
	}
	return fmt.Sprintf("%q and %d more", u.Paths[:maxPaths], len(u.Paths)-maxPaths)
}
