// Package manual makes manual pages and shell completions from the commands and
// options of a program. Only tests import it: they compare what it makes with the
// files in packaging/, or write these ("go generate ./cmd/...").
package manual

import (
	"bytes"
	"embed"
	"fmt"
	"strings"
	"text/template"

	"github.com/cpuguy83/go-md2man/v2/md2man"
)

// Option is an option of a command.
type Option struct {
	Name  string // without dashes
	Value string // placeholder of its value, "" if it takes none
	Usage string
	// Words are what the value can be, if these are few. With the value LIST there may
	// be several of them, separated by commas.
	Words []string
}

// Command is a command of a program.
type Command struct {
	Name, Synopsis, Summary string
	// Text has paragraphs, and lines that are indented to be shown as they are.
	Text string
	// Container is whether its argument is a container.
	Container bool
	Options   []Option
}

// Program is what pages are made from.
type Program struct {
	Name     string
	Commands []Command
	Options  []Option // of a program without commands
	Statuses string
}

//go:embed *.md
var pages embed.FS

// Page makes a manual page from the template with its name and ".md".
func (p *Program) Page(name string) ([]byte, error) {
	t := template.New(name + ".md").Funcs(template.FuncMap{"markdown": markdown, "bold": bold, "usage": usage})
	t, err := t.ParseFS(pages, name+".md")
	if err != nil {
		return nil, fmt.Errorf("manual page %s: %w", name, err)
	}
	var text bytes.Buffer
	if err := t.Execute(&text, p); err != nil {
		return nil, fmt.Errorf("manual page %s: %w", name, err)
	}
	return minus(md2man.Render(text.Bytes())), nil
}

// minus makes the hyphens of a page the characters that a shell knows, but for those of
// requests: groff turns others into typographical ones.
func minus(page []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(page) {
		if line[0] != '.' {
			line = bytes.ReplaceAll(bytes.ReplaceAll(line, []byte(`\-`), []byte("-")), []byte("-"), []byte(`\-`))
		}
		b.Write(line)
	}
	return b.Bytes()
}

// bold sets words of a synopsis in bold, but for placeholders, which are in capitals.
func bold(synopsis string) string {
	var words []string
	for word := range strings.FieldsSeq(synopsis) {
		var parts []string
		for part := range strings.SplitSeq(word, "|") {
			name := strings.Trim(part, "[].")
			mark := "**"
			if name == strings.ToUpper(name) {
				mark = "*"
			}
			parts = append(parts, strings.Replace(part, name, mark+name+mark, 1))
		}
		words = append(words, strings.Join(parts, "|"))
	}
	return strings.NewReplacer("[", `\[`, "]", `\]`).Replace(strings.Join(words, " "))
}

// usage is an option's text as a sentence.
func usage(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }

// markdown indents lines that are to be shown as they are so that Markdown does that.
func markdown(text string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "  ") {
			line = "  " + line
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}
