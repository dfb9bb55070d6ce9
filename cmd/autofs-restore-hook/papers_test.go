package main

import (
	"os"
	"strings"
	"testing"
	"unicode"
)

// TestPapers: the manual page and the completions know every command and option
// that the summary names, and no option that it does not.
func TestPapers(t *testing.T) {
	people, _, _ := strings.Cut(usage, "Called by programs:")
	_, people, _ = strings.Cut(people, "Called by people:")
	want := map[string]bool{}
	for line := range strings.Lines(people) {
		if name := strings.Fields(line); len(name) > 0 && !strings.HasPrefix(line, "    ") {
			want[name[0]] = true
		}
		for _, o := range options(line) {
			want[o] = true
		}
	}
	if len(want) < 14 {
		t.Errorf("only %v in the summary", want)
	}
	for file, form := range map[string]*strings.Replacer{
		"man/autofs-restore-hook.8":           strings.NewReplacer(`\-`, "-"),
		"completion/autofs-restore-hook.bash": strings.NewReplacer(),
		"completion/_autofs-restore-hook":     strings.NewReplacer(),
		"completion/autofs-restore-hook.fish": strings.NewReplacer(" -l ", " --"),
	} {
		data, err := os.ReadFile("../../packaging/" + file)
		if err != nil {
			t.Fatal(err)
		}
		text := form.Replace(string(data))
		for word := range want {
			if !strings.Contains(text, word) {
				t.Errorf("%s says nothing of %s", file, word)
			}
		}
		for _, o := range options(text) {
			if !want[o] {
				t.Errorf("%s has %s, which the summary has not", file, o)
			}
		}
	}
}

// options lists the words that begin with two dashes.
func options(text string) []string {
	var list []string
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r != '-' && !unicode.IsLetter(r) }) {
		if len(word) > 3 && strings.HasPrefix(word, "--") {
			list = append(list, word)
		}
	}
	return list
}
