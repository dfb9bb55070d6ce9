// Package matrix stores the results of the end-to-end tests under each container runtime,
// and makes the table of docs/tested-with.md from them. The table has no other source.
package matrix

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Row has the results under one runtime on one node.
type Row struct {
	Node     string   `json:"node"`     // for example "Debian 13"
	Engine   string   `json:"engine"`   // for example "podman, crun, archive"
	Versions string   `json:"versions"` // of the programs that took part
	Date     string   `json:"date"`     // of the run, YYYY-MM-DD
	Control  string   `json:"control"`  // the result of a restore without the program
	Channels []Entry  `json:"channels"` // the ways in which a restore calls the program
	Cells    []Entry  `json:"cells"`    // one for each container
	Notes    []string `json:"notes"`    // changes that the runtime itself makes in a restore
}

// Entry is one cell: its column and the result.
type Entry struct {
	Column string `json:"column"`
	Text   string `json:"text"`
}

// Save writes the rows of a node to a file.
func Save[R Row | Variant](path string, rows []R) error {
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// Load reads the rows of all nodes, in the order of the files' names. The results of
// several runs under one runtime become one row.
func Load(dir string) ([]Row, error) {
	rows, err := load[Row](dir)
	var all []Row
	for _, r := range rows {
		all = add(all, r)
	}
	return all, err
}

func load[R Row | Variant](dir string) ([]R, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("results of a run: %w", &fs.PathError{Op: "look for *.json", Path: dir, Err: fs.ErrNotExist})
	}
	var all []R
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var rows []R
		if err := json.Unmarshal(text, &rows); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, rows...)
	}
	return all, nil
}

// NotRun is the Control of a row whose control did not run.
const NotRun = "not run"

func add(all []Row, r Row) []Row {
	for i := range all {
		row := &all[i]
		if row.Node != r.Node || row.Engine != r.Engine || row.Versions != r.Versions {
			continue
		}
		row.Cells = append(row.Cells, r.Cells...)
		row.Channels = append(row.Channels, r.Channels...)
		row.Notes = append(row.Notes, r.Notes...)
		row.Date = max(row.Date, r.Date)
		if row.Control == NotRun {
			row.Control = r.Control
		}
		return all
	}
	return append(all, r)
}

// Markdown returns the table.
func Markdown(rows []Row) string {
	channels, cells := columns(rows, func(r Row) []Entry { return r.Channels }), columns(rows, func(r Row) []Entry { return r.Cells })
	lines := [][]string{slices.Concat([]string{"node", "engine", "versions"}, cells, []string{"without the program"}, channels, []string{"date"})}
	for _, r := range rows {
		lines = append(lines, slices.Concat([]string{r.Node, r.Engine, r.Versions}, texts(r.Cells, cells),
			[]string{r.Control}, texts(r.Channels, channels), []string{r.Date}))
	}
	text := table(lines)
	for _, note := range notes(rows) {
		text += "\n" + note + "\n"
	}
	return text
}

// table returns lines, of which the first is the head.
func table(lines [][]string) string {
	var b strings.Builder
	for i, fields := range lines {
		for _, f := range fields {
			fmt.Fprintf(&b, "| %s ", strings.ReplaceAll(f, "|", `\|`))
		}
		b.WriteString("|\n")
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(fields)) + "|\n")
		}
	}
	return b.String()
}

// columns returns the columns of all rows, in the order in which they appear.
func columns(rows []Row, of func(Row) []Entry) []string {
	var names []string
	for _, r := range rows {
		for _, e := range of(r) {
			if !slices.Contains(names, e.Column) {
				names = append(names, e.Column)
			}
		}
	}
	return names
}

func texts(entries []Entry, columns []string) []string {
	out := make([]string, len(columns))
	for i, name := range columns {
		out[i] = NotRun
		for _, e := range entries {
			if e.Column == name {
				out[i] = e.Text
			}
		}
	}
	return out
}

// notes returns the notes of all rows, each with the engines that it is about.
func notes(rows []Row) []string {
	about := make(map[string][]string)
	var order []string
	for _, r := range rows {
		for _, note := range r.Notes {
			if about[note] == nil {
				order = append(order, note)
			}
			if !slices.Contains(about[note], r.Engine) {
				about[note] = append(about[note], r.Engine)
			}
		}
	}
	for i, note := range order {
		order[i] = strings.Join(about[note], "; ") + ": " + note
	}
	return order
}

// Names of the tables, in the lines before and after them; the first goes on with what
// makes it.
const (
	Runtimes = "matrix"
	Variants = "variants"
)

func begin(name string) string { return "<!-- " + name + ": begin" }
func end(name string) string   { return "<!-- " + name + ": end -->" }

// ErrNoPlace means that a text has no place for the table.
var ErrNoPlace = errors.New("there are no lines between which the table belongs")

// Insert replaces a table in a text.
func Insert(text, name, table string) (string, error) {
	first, last := begin(name), end(name)+"\n"
	before, rest, ok := strings.Cut(text, first)
	if !ok {
		return "", fmt.Errorf("%w: %q is missing", ErrNoPlace, begin(name))
	}
	by, rest, _ := strings.Cut(rest, "\n")
	_, after, ok := strings.Cut(rest, last)
	if !ok {
		return "", fmt.Errorf("%w: %q is missing", ErrNoPlace, end(name))
	}
	return before + first + by + "\n\n" + table + "\n" + last + after, nil
}
