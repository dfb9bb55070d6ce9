package matrix

import (
	"errors"
	"path/filepath"
	"testing"
)

func TestTable(t *testing.T) {
	dir := t.TempDir()
	first := []Row{{Node: "a", Engine: "runc", Date: "2026-01-02", Control: "hangs", Cells: []Entry{{"x", "1 ok"}}, Notes: []string{"n"}}}
	second := []Row{
		{Node: "a", Engine: "runc", Date: "2026-01-03", Control: NotRun, Cells: []Entry{{"z", "3"}}},
		{Node: "b", Engine: "crun", Cells: []Entry{{"x", "a|b"}, {"y", "2"}}, Channels: []Entry{{"c", "yes"}}, Notes: []string{"n"}},
	}
	for name, rows := range map[string][]Row{"1.json": first, "2.json": second} {
		if err := Save(filepath.Join(dir, name), rows); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	const want = `| node | engine | versions | x | z | y | without the program | c | date |
|---|---|---|---|---|---|---|---|---|
| a | runc |  | 1 ok | 3 | not run | hangs | not run | 2026-01-03 |
| b | crun |  | a\|b | not run | 2 |  | yes |  |

runc; crun: n
`
	if got := Markdown(rows); got != want {
		t.Errorf("table:\n%s\nwant\n%s", got, want)
	}
}

func TestInsert(t *testing.T) {
	text := "before\n" + begin(Runtimes) + " (by x) -->\nold\n" + end(Runtimes) + "\nafter\n"
	got, err := Insert(text, Runtimes, "new\n")
	if want := "before\n" + begin(Runtimes) + " (by x) -->\n\nnew\n\n" + end(Runtimes) + "\nafter\n"; err != nil || got != want {
		t.Errorf("%q (%v), want %q", got, err, want)
	}
	if again, err := Insert(got, Runtimes, "new\n"); err != nil || again != got {
		t.Errorf("a second time: %q (%v)", again, err)
	}
	for _, text := range []string{"", begin(Runtimes) + "\n", end(Runtimes) + "\n"} {
		if _, err := Insert(text, Runtimes, "new\n"); !errors.Is(err, ErrNoPlace) {
			t.Errorf("%q: %v, want %v", text, err, ErrNoPlace)
		}
	}
}

func TestLoadNothing(t *testing.T) {
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("an empty folder is no run")
	}
}

func TestVariantsTable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "variants", "1.json")
	if err := Save(file, []Variant{{Node: "a", Engine: "runc", Name: "no flags", Mounts: "1 healthy", Date: "2026-01-02"}}); err != nil {
		t.Fatal(err)
	}
	rows, err := LoadVariants(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	const want = `| node | engine | what differs | versions | mounts | accesses | units | date |
|---|---|---|---|---|---|---|---|
| a | runc | no flags |  | 1 healthy |  |  | 2026-01-02 |
`
	if got := VariantsMarkdown(rows); got != want {
		t.Errorf("table:\n%s\nwant\n%s", got, want)
	}
}
