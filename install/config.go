package install

import (
	"bytes"
	"slices"
	"strings"
)

// CRIU reads its configuration line by line and splits each at blanks. The first word
// is an option, which may have its value after "="; a word that begins with # ends the
// line (criu/config.c, parse_statement).

// scriptOf returns the program that a line of CRIU's configuration calls, "" for another
// line.
func scriptOf(line string) string {
	line = strings.TrimSpace(line)
	rest, ok := strings.CutPrefix(line, "action-script")
	if !ok || rest == "" {
		return ""
	}
	value, ok := strings.CutPrefix(rest, "=")
	if !ok {
		if value = strings.TrimLeft(rest, " \t"); value == rest {
			return "" // another option that begins with these words
		}
	}
	if quoted, ok := strings.CutPrefix(value, `"`); ok {
		if value, _, ok = strings.Cut(quoted, `"`); ok {
			return value
		}
		return ""
	}
	if i := strings.IndexAny(value, " \t"); i >= 0 {
		value = value[:i]
	}
	if strings.HasPrefix(value, "#") {
		return ""
	}
	return value
}

// ActionScripts returns the programs that a configuration calls.
func ActionScripts(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		if s := scriptOf(line); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// hasForceIrmap reports whether a configuration sets force-irmap.
func hasForceIrmap(text string) bool {
	for line := range strings.Lines(text) {
		word, _, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), " ")
		if word == ForceIrmap {
			return true
		}
	}
	return false
}

// appendLine appends a line, which ends with a newline, to a text. endsOpen reports
// whether the last line of the text had no newline.
func appendLine(text []byte, line string) (out []byte, endsOpen bool) {
	out = bytes.Clone(text)
	if endsOpen = len(out) > 0 && out[len(out)-1] != '\n'; endsOpen {
		out = append(out, '\n')
	}
	return append(out, line...), endsOpen
}

// replaceLines puts a line in the place of the first line that matches, and removes the
// other ones. The line "" removes all of them; endsOpen says then that the line before,
// if the last line is removed, had no newline originally.
func replaceLines(text []byte, matches func(line string) bool, line string, endsOpen bool) []byte {
	var out []byte
	removedLast := false
	for l := range bytes.Lines(text) {
		removedLast = matches(string(l))
		switch {
		case !removedLast:
			out = append(out, l...)
		case line != "":
			out = append(out, line...)
			line, removedLast = "", false
		}
	}
	if removedLast && endsOpen {
		out = bytes.TrimSuffix(out, []byte("\n"))
	}
	return out
}

// callsAny returns a function that reports whether a line calls one of the files.
func callsAny(files ...string) func(line string) bool {
	return func(line string) bool {
		script := scriptOf(line)
		return script != "" && slices.Contains(files, script)
	}
}

// hooksDirectories returns the directories of hooks_dir in a configuration of podman or
// CRI-O; nil if it is not set. It scans for this one setting: a TOML decoder is larger
// than this package.
func hooksDirectories(text string) []string {
	var list []string
	inside := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !inside {
			rest, ok := strings.CutPrefix(line, "hooks_dir")
			if !ok {
				continue
			}
			if line, ok = strings.CutPrefix(strings.TrimSpace(rest), "="); !ok {
				continue
			}
			list, inside = []string{}, true
		}
		for line != "" && inside {
			i := strings.IndexAny(line, `"'#]`)
			if i < 0 {
				break
			}
			c := line[i : i+1]
			line = line[i+1:]
			switch c {
			case "#":
				line = ""
			case "]":
				inside = false
			default:
				var word string
				word, line, _ = strings.Cut(line, c)
				list = append(list, word)
			}
		}
	}
	return list
}
