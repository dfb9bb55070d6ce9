package install

import (
	"strconv"
	"strings"
)

// Version is a version number: major, minor, and what follows.
type Version [3]int

// ScriptVersion is the first CRIU that takes action scripts from a configuration
// file when a runtime calls it: with older ones such a line aborts every
// checkpoint and restore (commit 28d005638).
var ScriptVersion = Version{3, 19}

// Less reports whether it is before another one.
func (v Version) Less(w Version) bool {
	for i := range v {
		if v[i] != w[i] {
			return v[i] < w[i]
		}
	}
	return false
}

func (v Version) String() string {
	s := strconv.Itoa(v[0]) + "." + strconv.Itoa(v[1])
	if v[2] != 0 {
		s += "." + strconv.Itoa(v[2])
	}
	return s
}

// ParseVersion finds the first version number, such as 4.1.1, that begins a word
// of a text, with or without a v before it.
func ParseVersion(text string) (Version, bool) {
	for word := range strings.FieldsSeq(text) {
		if v, ok := parseWord(strings.TrimPrefix(word, "v")); ok {
			return v, true
		}
	}
	return Version{}, false
}

func parseWord(word string) (v Version, ok bool) {
	for i := range v {
		end := 0
		for end < len(word) && word[end] >= '0' && word[end] <= '9' {
			end++
		}
		n, err := strconv.Atoi(word[:end])
		if err != nil || n > 1<<20 {
			return v, i >= 2
		}
		v[i] = n
		if word = word[end:]; word == "" || word[0] != '.' {
			return v, i >= 1
		}
		word = word[1:]
	}
	return v, true
}
