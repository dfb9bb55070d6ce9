// Package documents checks the documents: that links lead somewhere, that names are those
// of the program, and that the words are plain. It has no other code.
package documents

import (
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// root is the checkout.
const root = "../.."

// read returns a file of the checkout.
func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// files lists the files of the checkout with a suffix, by their path in it.
func files(t *testing.T, suffix string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "bin"):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(d.Name(), suffix):
			name, err := filepath.Rel(root, path)
			list = append(list, name)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// documents are all Markdown files of the checkout.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, name := range files(t, ".md") {
		texts[name] = read(t, name)
	}
	if len(texts) < 15 {
		t.Fatalf("only %d documents found", len(texts))
	}
	return texts
}

// prose is a document without its blocks of code.
func prose(text string) string {
	var b strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if !fenced && !strings.HasPrefix(line, "    ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	span    = regexp.MustCompile("`([^`]+)`")
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)
)

// anchors are the names that GitHub gives to the headings of a document.
func anchors(text string) map[string]bool {
	found := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(prose(text), -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, link.ReplaceAllString(m[1], ""))
		for n, once := 1, name; found[name]; n++ {
			name = once + "-" + strconv.Itoa(n)
		}
		found[name] = true
	}
	return found
}

// TestLinks: every relative link leads to a file of the checkout, and every anchor to
// a heading.
func TestLinks(t *testing.T) {
	texts := documents(t)
	count := 0
	for name, text := range texts {
		for _, m := range link.FindAllStringSubmatch(span.ReplaceAllString(prose(text), ""), -1) {
			target, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: %s: %v", name, m[1], err)
				continue
			}
			if target.Scheme != "" {
				continue
			}
			count++
			file := name
			if target.Path != "" {
				file = filepath.Join(filepath.Dir(name), target.Path)
			}
			if _, err := os.Stat(filepath.Join(root, file)); err != nil || strings.HasPrefix(file, "..") {
				t.Errorf("%s: %s leads nowhere", name, m[1])
			} else if target.Fragment != "" && !anchors(texts[file])[target.Fragment] {
				t.Errorf("%s: %s: %s has no such heading", name, m[1], file)
			}
		}
	}
	if count < 50 {
		t.Errorf("only %d relative links found", count)
	}
}

// TestEveryPageIsLinked: a reader can get from README.md to every document.
func TestEveryPageIsLinked(t *testing.T) {
	texts := documents(t)
	reached := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		if reached[name] {
			return
		}
		reached[name] = true
		for _, m := range link.FindAllStringSubmatch(texts[name], -1) {
			if target, err := url.Parse(m[1]); err == nil && target.Scheme == "" && target.Path != "" {
				visit(filepath.Join(filepath.Dir(name), target.Path))
			}
		}
	}
	visit("README.md")
	for name := range texts {
		if !reached[name] && !strings.HasPrefix(name, ".github/") && !strings.HasPrefix(name, "cmd/") { // manual pages are there
			t.Errorf("%s: no way leads there from README.md", name)
		}
	}
}

// TestReadme: the first page stays one.
func TestReadme(t *testing.T) {
	const most = 150
	if lines := strings.Count(read(t, "README.md"), "\n"); lines > most {
		t.Errorf("README.md has %d lines, at most %d: the rest belongs into docs/", lines, most)
	}
	for _, command := range []string{"make demo", "make test"} {
		if !strings.Contains(read(t, "README.md"), command) {
			t.Errorf("README.md does not say %q", command)
		}
	}
}

// plain are words and idioms that a reader has to decode, with what to write instead.
var plain = map[*regexp.Regexp]string{}

func init() {
	for word, instead := range map[string]string{
		"nobody":                    "no process",
		"somebody":                  "another process",
		"everybody":                 "each",
		"whoever":                   "the caller, the user",
		"those who":                 "a noun",
		"anew":                      "again; recreate",
		"begun":                     "interrupted; started",
		"let(s)? go":                "release",
		"is told":                   "is updated; is called with",
		"kept aside":                "parked",
		"twice is the same as once": "idempotent",
		"mend(s|ed|ing)?":           "fix, repair",
		"what covers it":            "its cover",
		"who waits":                 "the waiter",
	} {
		plain[regexp.MustCompile(`(?i)\b`+strings.ReplaceAll(word, " ", `\s+`)+`\b`)] = instead
	}
}

// TestPlainWords: documents, Go sources, manifests and manual pages have none of these
// words.
func TestPlainWords(t *testing.T) {
	var names []string
	for _, suffix := range []string{".md", ".go", ".yaml", ".yml", ".toml", ".conf", ".sh", ".5", ".8"} {
		names = append(names, files(t, suffix)...)
	}
	for _, name := range names {
		if name == "internal/documents/text_test.go" {
			continue
		}
		text := strings.ReplaceAll(read(t, name), "User=nobody", "") // a user of the system
		lower := strings.ToLower(text)
		for word, instead := range plain {
			if !strings.Contains(lower, literal(word)) {
				continue // a regular expression takes long
			}
			for number, line := range strings.Split(text, "\n") {
				if found := word.FindString(line); found != "" {
					t.Errorf("%s:%d: %q: write %s", name, number+1, found, instead)
				}
			}
		}
	}
}

// literal returns the longest part of a regular expression of [plain] that is in every
// match.
func literal(word *regexp.Regexp) (longest string) {
	for part := range strings.FieldsFuncSeq(strings.TrimPrefix(word.String(), `(?i)\b`), func(r rune) bool { return !unicode.IsLower(r) }) {
		if len(part) > len(longest) {
			longest = part
		}
	}
	return longest
}
