package install

import (
	"fmt"
	"slices"
	"strings"
)

// Version is a version number: major, minor and patch level. The zero value stands
// for an unknown version.
type Version [3]int

// ScriptVersion is the first CRIU that accepts an action script in a configuration
// file when a runtime calls it: older ones abort every checkpoint and restore
// (commit 28d005638).
var ScriptVersion = Version{3, 19}

// Less reports whether v is older than w.
func (v Version) Less(w Version) bool { return slices.Compare(v[:], w[:]) < 0 }

func (v Version) String() string {
	return strings.TrimSuffix(fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]), ".0")
}

// parseVersion returns the first version number, such as 4.1.1, at the start of a
// word of the text, with or without a leading v. What follows the number in that
// word is ignored: distributions append suffixes like +ds1 and ~rc1, which are not
// semantic versions.
func parseVersion(text string) (Version, bool) {
	for word := range strings.FieldsSeq(text) {
		var v Version
		if n, _ := fmt.Sscanf(strings.TrimPrefix(word, "v"), "%d.%d.%d", &v[0], &v[1], &v[2]); n >= 2 {
			return v, true
		}
	}
	return Version{}, false
}
