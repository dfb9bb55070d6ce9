package install

import (
	"bytes"
	"slices"
	"strings"
)

// Functions on the text of CRIU's configuration files. CRIU reads them line by
// line, splits at blanks, and takes the first word for an option, which may hold
// its value after "="; a word that begins with # ends the line (criu/config.c,
// parse_statement).

// ActionScript is the program that a line of CRIU's configuration calls, "" if
// it is another line.
func ActionScript(line string) string {
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

// ActionScripts lists the programs that a configuration calls.
func ActionScripts(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		if s := ActionScript(line); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// HasOption reports whether a configuration sets an option that has no value.
func HasOption(text, name string) bool {
	for line := range strings.Lines(text) {
		word, _, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), " ")
		if word == name {
			return true
		}
	}
	return false
}

// appendLine appends a line, which has a newline at its end, to a text. newline
// is whether the last line of the text had to be ended first.
func appendLine(text []byte, line string) (out []byte, newline bool) {
	out = bytes.Clone(text)
	if newline = len(out) > 0 && out[len(out)-1] != '\n'; newline {
		out = append(out, '\n')
	}
	return append(out, line...), newline
}

// replaceLines puts a line into the place of the first one that calls one of
// these files, and removes the others. The line "" removes all of them; newline
// says then that the line before our own, if that is the last, had no end.
func replaceLines(text []byte, called []string, line string, newline bool) []byte {
	var out []byte
	last := false // the line that was removed is the last one
	for l := range bytes.Lines(text) {
		script := ActionScript(string(l))
		last = script != "" && slices.Contains(called, script)
		switch {
		case !last:
			out = append(out, l...)
		case line != "":
			out = append(out, line...)
			line, last = "", false
		}
	}
	if last && newline {
		out = bytes.TrimSuffix(out, []byte("\n"))
	}
	return out
}

// hooksDirectories are the folders that hooks_dir names in a configuration of
// podman or CRI-O; nil if it does not say. Only this one setting of a TOML file
// is looked for.
func hooksDirectories(text string) []string {
	var list []string
	found, inside := false, false
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
			list, found, inside = nil, true, true
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
	if !found {
		return nil
	}
	return append([]string{}, list...)
}
