package master

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// section is how systemd writes the state of one automount unit, shortened.
func section(unit, device string) string {
	return unit + "\nstate=waiting\nresult=success\n" + device + "pipe-fd=38\ntransient=no\n\n"
}

const header = "last-transaction-id=2\ncurrent-job-id=69\nnotify-socket=/run/systemd/notify\n\n"

func TestEditState(t *testing.T) {
	idle := []DeviceChange{{Unit: "mnt-idle.automount", Old: 148, New: 1048576}}
	tests := map[string]struct {
		text    string
		changes []DeviceChange // default: idle
		want    string         // "": as it was
		changed []string
		left    map[string]string // by unit, a part of the reason
		waiting []string
	}{
		"the number of one unit": {
			text:    header + section("mnt-idle.automount", "dev-id=148\n"),
			want:    header + section("mnt-idle.automount", "dev-id=1048576\n"),
			changed: []string{"mnt-idle.automount"},
		},
		"already new": {
			text:    header + section("mnt-idle.automount", "dev-id=1048576\n"),
			changed: []string{"mnt-idle.automount"},
		},
		"another number than expected": {
			text: header + section("mnt-idle.automount", "dev-id=149\n"),
			left: map[string]string{"mnt-idle.automount": "remembers device 149, not 148"},
		},
		"device 0: not mounted": {
			text: header + section("mnt-idle.automount", "dev-id=0\n"),
			left: map[string]string{"mnt-idle.automount": "remembers device 0, not 148"},
		},
		"no number": {
			text: header + section("mnt-idle.automount", ""),
			left: map[string]string{"mnt-idle.automount": "does not mention"},
		},
		"no such unit": {
			text: header + section("mnt-other.automount", "dev-id=148\n"),
			left: map[string]string{"mnt-idle.automount": "does not mention"},
		},
		"two units with the same old number": {
			text: header + section("mnt-other.automount", "dev-id=148\n") + section("mnt-idle.automount", "dev-id=148\n") +
				section("mnt-third.automount", "dev-id=148\n"),
			changes: []DeviceChange{
				{Unit: "mnt-idle.automount", Old: 148, New: 7}, {Unit: "mnt-third.automount", Old: 148, New: 8},
			},
			want: header + section("mnt-other.automount", "dev-id=148\n") + section("mnt-idle.automount", "dev-id=7\n") +
				section("mnt-third.automount", "dev-id=8\n"),
			changed: []string{"mnt-idle.automount", "mnt-third.automount"},
		},
		"two units that swap their numbers": {
			text: header + section("a.automount", "dev-id=7\n") + section("b.automount", "dev-id=8\n"),
			changes: []DeviceChange{
				{Unit: "a.automount", Old: 7, New: 8}, {Unit: "b.automount", Old: 8, New: 7},
			},
			want:    header + section("a.automount", "dev-id=8\n") + section("b.automount", "dev-id=7\n"),
			changed: []string{"a.automount", "b.automount"},
		},
		"names that are parts of others": {
			text: header + section("mnt-idle.automount.automount", "dev-id=148\n") + section("x-mnt-idle.automount", "dev-id=148\n") +
				section("mnt-idle.mount", "dev-id=148\n") + section("mnt-idle.automount", "dev-id=148\n"),
			want: header + section("mnt-idle.automount.automount", "dev-id=148\n") + section("x-mnt-idle.automount", "dev-id=148\n") +
				section("mnt-idle.mount", "dev-id=148\n") + section("mnt-idle.automount", "dev-id=1048576\n"),
			changed: []string{"mnt-idle.automount"},
		},
		"odd names": {
			text: header + section(`mnt-with\x20blank.automount`, "dev-id=1\n") + section(`\xc3\xa4@:_-.automount`, "dev-id=2\n") +
				section("-.automount", "dev-id=3\n"),
			changes: []DeviceChange{
				{Unit: `mnt-with\x20blank.automount`, Old: 1, New: 11}, {Unit: `\xc3\xa4@:_-.automount`, Old: 2, New: 12}, {Unit: "-.automount", Old: 3, New: 13},
			},
			want: header + section(`mnt-with\x20blank.automount`, "dev-id=11\n") + section(`\xc3\xa4@:_-.automount`, "dev-id=12\n") +
				section("-.automount", "dev-id=13\n"),
			changed: []string{`mnt-with\x20blank.automount`, `\xc3\xa4@:_-.automount`, "-.automount"},
		},
		"units named like fields": {
			text:    header + section("dev-id", "dev-id=148\n") + section("token", "dev-id=148\n") + section("job", "dev-id=148\n"),
			changes: []DeviceChange{{Unit: "dev-id", Old: 148, New: 9}},
			want:    header + section("dev-id", "dev-id=9\n") + section("token", "dev-id=148\n") + section("job", "dev-id=148\n"),
			changed: []string{"dev-id"},
		},
		"a value that looks like the line": {
			text: header + "mnt-idle.automount\nstatus-text=dev-id=148\ndev-id-old=148\nx-dev-id=148\n dev-id=148\ndev-id=148\n\n",
			want: header + "mnt-idle.automount\nstatus-text=dev-id=148\ndev-id-old=148\nx-dev-id=148\n dev-id=148\ndev-id=1048576\n\n",

			changed: []string{"mnt-idle.automount"},
		},
		"jobs": {
			// A job ends with an empty line of its own, then comes the unit's.
			text: header + "mnt-idle.automount\ndev-id=148\njob\njob-id=5\njob-type=start\n\n\n" +
				"mnt-other.automount\ndev-id=148\njob\njob-id=6\n\njob\njob-id=7\njob-type=nop\n\n\n" + section("a.service", ""),
			want: header + "mnt-idle.automount\ndev-id=1048576\njob\njob-id=5\njob-type=start\n\n\n" +
				"mnt-other.automount\ndev-id=148\njob\njob-id=6\n\njob\njob-id=7\njob-type=nop\n\n\n" + section("a.service", ""),
			changed: []string{"mnt-idle.automount"},
		},
		"requests that wait": {
			text:    header + section("mnt-idle.automount", "dev-id=148\ntoken=18\n") + section("mnt-other.automount", "token=19\ndev-id=148\n"),
			want:    header + section("mnt-idle.automount", "dev-id=1048576\ntoken=18\n") + section("mnt-other.automount", "token=19\ndev-id=148\n"),
			changed: []string{"mnt-idle.automount"},
			waiting: []string{"mnt-idle.automount"},
		},
		"nothing wanted": {
			text:    header + section("mnt-idle.automount", "dev-id=148\ntoken=18\n"),
			changes: []DeviceChange{},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			changes := test.changes
			if changes == nil {
				changes = idle
			}
			given := []byte(test.text)
			edit, err := EditState(given, changes)
			if err != nil {
				t.Fatal(err)
			}
			want := test.want
			if want == "" {
				want = test.text
			}
			if string(edit.Text) != want {
				t.Errorf("text:\n%q\nwant:\n%q", edit.Text, want)
			}
			if string(given) != test.text {
				t.Error("the text that was given was changed in place")
			}
			if !slices.Equal(edit.Changed, test.changed) {
				t.Errorf("changed %q, want %q", edit.Changed, test.changed)
			}
			if !slices.Equal(edit.Waiting, test.waiting) {
				t.Errorf("waiting %q, want %q", edit.Waiting, test.waiting)
			}
			if !slices.Equal(slices.Sorted(maps.Keys(edit.Left)), slices.Sorted(maps.Keys(test.left))) {
				t.Errorf("left %q, want %q", edit.Left, test.left)
			}
			for unit, part := range test.left {
				if !strings.Contains(edit.Left[unit], part) {
					t.Errorf("%s was left because %q, want %q", unit, edit.Left[unit], part)
				}
			}
		})
	}
}

func TestEditStateLeavesWhatIsNoNumber(t *testing.T) {
	for _, value := range []string{"", "x", "-1", "+148", "148 ", " 148", "0x94", "148.0", "18446744073709551616", "148\x00", "٣"} {
		text := header + section("mnt-idle.automount", "dev-id="+value+"\n")
		edit, err := EditState([]byte(text), []DeviceChange{{Unit: "mnt-idle.automount", Old: 148, New: 7}})
		if err != nil {
			t.Fatalf("%q: %v", value, err)
		}
		if string(edit.Text) != text || len(edit.Changed) != 0 || edit.Left["mnt-idle.automount"] == "" {
			t.Errorf("%q: changed %q, left %q", value, edit.Changed, edit.Left)
		}
	}
}

func TestEditStateRefuses(t *testing.T) {
	whole := header + section("mnt-idle.automount", "dev-id=148\n")
	texts := map[string]string{
		"empty":                           "",
		"only the first section":          header,
		"no section":                      strings.TrimSuffix(header, "\n"),
		"a section that begins otherwise": header + "state=waiting\ndev-id=148\n\n",
		"not text":                        "\x7fELF\x02\x01\x01\x00",
	}
	for cut := len(header); cut < len(whole); cut++ {
		texts["cut after "+strconv.Itoa(cut)+" bytes"] = whole[:cut]
	}
	for name, text := range texts {
		if edit, err := EditState([]byte(text), []DeviceChange{{Unit: "mnt-idle.automount", Old: 148, New: 7}}); err == nil {
			t.Errorf("%s: no error, changed %q in %q", name, edit.Changed, edit.Text)
		}
	}
}

// TestEditRealState corrects what real versions of systemd wrote.
func TestEditRealState(t *testing.T) {
	units := []string{
		"mnt-idle.automount", `mnt-with\x20blank.automount`, "mnt-covered.automount", "mnt-stacked.automount",
		"proc-sys-fs-binfmt_misc.automount",
	}
	for _, version := range []int{252, 257, 262} {
		t.Run(strconv.Itoa(version), func(t *testing.T) {
			text := realState(t, version)
			want := string(text)
			var changes []DeviceChange
			for i, unit := range units {
				// The number stands in the unit's section, and there only.
				_, after, found := strings.Cut(want, "\n\n"+unit+"\n")
				if !found {
					t.Fatalf("no section of %s", unit)
				}
				inner, _, _ := strings.Cut(after, "\n\n")
				_, number, found := strings.Cut(inner, "\ndev-id=")
				if !found {
					t.Fatalf("%s has no device number", unit)
				}
				number, _, _ = strings.Cut(number, "\n")
				old, err := strconv.ParseUint(number, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				change := DeviceChange{Unit: unit, Old: old, New: uint64(i)*1000 + 5}
				changes = append(changes, change)
				corrected := strings.Replace(inner, "\ndev-id="+number+"\n", fmt.Sprintf("\ndev-id=%d\n", change.New), 1)
				want = strings.Replace(want, "\n\n"+unit+"\n"+inner, "\n\n"+unit+"\n"+corrected, 1)
			}
			edit, err := EditState(text, changes)
			if err != nil {
				t.Fatal(err)
			}
			if string(edit.Text) != want {
				t.Error("the corrected text is not the original with other numbers")
			}
			if len(edit.Changed) != len(units) || len(edit.Left) != 0 {
				t.Errorf("changed %q, left %q", edit.Changed, edit.Left)
			}
			// And back again: every byte as before.
			for i := range changes {
				changes[i].Old, changes[i].New = changes[i].New, changes[i].Old
			}
			back, err := EditState(edit.Text, changes)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(back.Text, text) {
				t.Error("the numbers corrected back do not give the original")
			}
		})
	}
}

// TestEditLargeState corrects 1,000 of 2,000 units in more than 1 MB.
func TestEditLargeState(t *testing.T) {
	const units = 2000
	filler := strings.Repeat("exported-log-rate-limit-interval=no\n", 14)
	var text, want strings.Builder
	text.WriteString(header)
	want.WriteString(header)
	var changes []DeviceChange
	for i := range units {
		unit := fmt.Sprintf(`srv-%d\x20%d.automount`, i, i)
		text.WriteString(section(unit, fmt.Sprintf("dev-id=%d\n", i)+filler))
		number := i
		if i%2 == 0 {
			number = 1<<20 + i
			changes = append(changes, DeviceChange{Unit: unit, Old: uint64(i), New: uint64(number)})
		}
		want.WriteString(section(unit, fmt.Sprintf("dev-id=%d\n", number)+filler))
	}
	if text.Len() < 1<<20 {
		t.Fatalf("only %d bytes", text.Len())
	}
	edit, err := EditState([]byte(text.String()), changes)
	if err != nil {
		t.Fatal(err)
	}
	if string(edit.Text) != want.String() {
		t.Error("the corrected text is not the original with other numbers")
	}
	if len(edit.Changed) != len(changes) || len(edit.Left) != 0 {
		t.Errorf("%d changed, %d left, want %d and none", len(edit.Changed), len(edit.Left), len(changes))
	}
}

func realState(t testing.TB, version int) []byte {
	t.Helper()
	file, err := os.Open(fmt.Sprintf("testdata/state-%d.gz", version))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// FuzzEditState looks that nothing but expected numbers changes.
func FuzzEditState(f *testing.F) {
	for _, version := range []int{252, 257, 262} {
		f.Add(realState(f, version), "mnt-idle.automount", uint64(148), uint64(35))
	}
	f.Add([]byte(header+section("a.automount", "dev-id=1\ntoken=2\n")), "a.automount", uint64(1), uint64(10))
	f.Fuzz(func(t *testing.T, text []byte, unit string, old, fresh uint64) {
		edit, err := EditState(text, []DeviceChange{{Unit: unit, Old: old, New: fresh}})
		if err != nil {
			return
		}
		before, after := bytes.Split(text, []byte("\n")), bytes.Split(edit.Text, []byte("\n"))
		if len(before) != len(after) {
			t.Fatalf("%d lines became %d", len(before), len(after))
		}
		for i := range before {
			if bytes.Equal(before[i], after[i]) {
				continue
			}
			number, _ := bytes.CutPrefix(before[i], []byte("dev-id="))
			if have, err := strconv.ParseUint(string(number), 10, 64); err != nil || have != old {
				t.Errorf("line %q was changed", before[i])
			}
			if string(after[i]) != "dev-id="+strconv.FormatUint(fresh, 10) {
				t.Errorf("line %q was changed to %q", before[i], after[i])
			}
			if !slices.Contains(edit.Changed, unit) {
				t.Errorf("line %q was changed without saying so", before[i])
			}
		}
		if !slices.Contains(edit.Changed, unit) && edit.Left[unit] == "" {
			t.Error("nothing was said about the unit")
		}
	})
}
