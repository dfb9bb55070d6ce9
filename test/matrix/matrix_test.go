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
	text := "before\n" + begin + " (by x) -->\nold\n" + end + "\nafter\n"
	got, err := Insert(text, "new\n")
	if want := "before\n" + begin + " (by x) -->\n\nnew\n\n" + end + "\nafter\n"; err != nil || got != want {
		t.Errorf("%q (%v), want %q", got, err, want)
	}
	if again, err := Insert(got, "new\n"); err != nil || again != got {
		t.Errorf("a second time: %q (%v)", again, err)
	}
	for _, text := range []string{"", begin + "\n", end + "\n"} {
		if _, err := Insert(text, "new\n"); !errors.Is(err, ErrNoPlace) {
			t.Errorf("%q: %v, want %v", text, err, ErrNoPlace)
		}
	}
}

func TestLoadNothing(t *testing.T) {
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("an empty folder is no run")
	}
}
