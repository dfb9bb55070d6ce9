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

// told is a section with nothing but a number.
func told(unit string, number int) string { return fmt.Sprintf("%s\ndev-id=%d\n\n", unit, number) }

func TestEditState(t *testing.T) {
	idle := []DeviceChange{{Unit: "mnt-idle.automount", Old: 148, New: 1048576}}
	tests := map[string]struct {
		text    string         // after the header
		changes []DeviceChange // default: idle
		want    string         // what is added
		changed []string
		left    map[string]string // by unit, a part of the reason
		waiting []string
	}{
		"the number of one unit": {
			text:    section("mnt-idle.automount", "dev-id=148\n"),
			want:    told("mnt-idle.automount", 1048576),
			changed: []string{"mnt-idle.automount"},
		},
		"already new": {
			text:    section("mnt-idle.automount", "dev-id=1048576\n"),
			changed: []string{"mnt-idle.automount"},
		},
		"another number than expected": {
			text: section("mnt-idle.automount", "dev-id=149\n"),
			left: map[string]string{"mnt-idle.automount": "remembers device 149, not 148"},
		},
		"device 0: not mounted": {
			text: section("mnt-idle.automount", "dev-id=0\n"),
			left: map[string]string{"mnt-idle.automount": "remembers device 0, not 148"},
		},
		"no number": {
			text: section("mnt-idle.automount", ""),
			left: map[string]string{"mnt-idle.automount": "does not mention"},
		},
		"no such unit": {
			text: section("mnt-other.automount", "dev-id=148\n"),
			left: map[string]string{"mnt-idle.automount": "does not mention"},
		},
		"no name": {
			text:    section("mnt-other.automount", "dev-id=148\n"),
			changes: []DeviceChange{{Unit: "", Old: 2, New: 3}},
			left:    map[string]string{"": "does not mention"},
		},
		"two numbers: systemd takes the later one": {
			text:    section("mnt-idle.automount", "dev-id=5\ndev-id=148\n") + section("mnt-other.automount", ""),
			want:    told("mnt-idle.automount", 1048576),
			changed: []string{"mnt-idle.automount"},
		},
		"two sections: systemd takes the later one": {
			text:    section("mnt-idle.automount", "dev-id=5\n") + section("mnt-idle.automount", "dev-id=148\n"),
			want:    told("mnt-idle.automount", 1048576),
			changed: []string{"mnt-idle.automount"},
		},
		"two sections, the later one is right": {
			text:    section("mnt-idle.automount", "dev-id=148\n") + told("mnt-idle.automount", 1048576),
			changed: []string{"mnt-idle.automount"},
		},
		"two units with the same old number": {
			text: section("mnt-other.automount", "dev-id=148\n") + section("mnt-idle.automount", "dev-id=148\n") +
				section("mnt-third.automount", "dev-id=148\n"),
			changes: []DeviceChange{
				{Unit: "mnt-idle.automount", Old: 148, New: 7}, {Unit: "mnt-third.automount", Old: 148, New: 8},
			},
			want:    told("mnt-idle.automount", 7) + told("mnt-third.automount", 8),
			changed: []string{"mnt-idle.automount", "mnt-third.automount"},
		},
		"two units that swap their numbers": {
			text: section("a.automount", "dev-id=7\n") + section("b.automount", "dev-id=8\n"),
			changes: []DeviceChange{
				{Unit: "a.automount", Old: 7, New: 8}, {Unit: "b.automount", Old: 8, New: 7},
			},
			want:    told("a.automount", 8) + told("b.automount", 7),
			changed: []string{"a.automount", "b.automount"},
		},
		"names that are parts of others": {
			text: section("mnt-idle.automount.automount", "dev-id=1\n") + section("x-mnt-idle.automount", "dev-id=2\n") +
				section("mnt-idle.automount", "dev-id=148\n") + section("mnt-idle.mount", "dev-id=3\n"),
			want:    told("mnt-idle.automount", 1048576),
			changed: []string{"mnt-idle.automount"},
		},
		"odd names": {
			text: section(`mnt-with\x20blank.automount`, "dev-id=1\n") + section(`\xc3\xa4@:_-.automount`, "dev-id=2\n") +
				section("-.automount", "dev-id=3\n"),
			changes: []DeviceChange{
				{Unit: `mnt-with\x20blank.automount`, Old: 1, New: 11}, {Unit: `\xc3\xa4@:_-.automount`, Old: 2, New: 12}, {Unit: "-.automount", Old: 3, New: 13},
			},
			want:    told(`mnt-with\x20blank.automount`, 11) + told(`\xc3\xa4@:_-.automount`, 12) + told("-.automount", 13),
			changed: []string{`mnt-with\x20blank.automount`, `\xc3\xa4@:_-.automount`, "-.automount"},
		},
		"units named like fields": {
			text:    section("dev-id", "dev-id=148\n") + section("token", "dev-id=149\n") + section("job", "dev-id=150\n"),
			changes: []DeviceChange{{Unit: "dev-id", Old: 148, New: 9}},
			want:    told("dev-id", 9),
			changed: []string{"dev-id"},
		},
		"a value that looks like the line": {
			text: "mnt-idle.automount\ndev-id=148\nstatus-text=dev-id=1\ndev-id-old=2\nx-dev-id=3\n dev-id=4\n\n",
			want: told("mnt-idle.automount", 1048576),

			changed: []string{"mnt-idle.automount"},
		},
		"jobs": {
			// A job ends with an empty line of its own, then comes the unit's.
			text: "mnt-idle.automount\ndev-id=148\njob\njob-id=5\njob-type=start\n\n\n" +
				"mnt-other.automount\ndev-id=149\njob\njob-id=6\n\njob\njob-id=7\njob-type=nop\n\n\n" + section("a.service", ""),
			want:    told("mnt-idle.automount", 1048576),
			changed: []string{"mnt-idle.automount"},
		},
		"requests that wait": {
			text:    section("mnt-idle.automount", "dev-id=148\ntoken=18\ntoken=20\n") + section("mnt-other.automount", "token=19\ndev-id=148\n"),
			want:    told("mnt-idle.automount", 1048576),
			changed: []string{"mnt-idle.automount"},
			waiting: []string{"mnt-idle.automount"},
		},
		"nothing wanted": {
			text:    section("mnt-idle.automount", "dev-id=148\ntoken=18\n"),
			changes: []DeviceChange{},
		},
		"a unit twice: the last one is meant": {
			text:    section("mnt-idle.automount", "dev-id=148\n"),
			changes: []DeviceChange{{Unit: "mnt-idle.automount", Old: 148, New: 1}, {Unit: "mnt-idle.automount", Old: 148, New: 2}},
			want:    told("mnt-idle.automount", 2),
			changed: []string{"mnt-idle.automount"},
		},
		"a name of a page": {
			text:    section(strings.Repeat("x", statePage), "dev-id=1\n"),
			changes: []DeviceChange{{Unit: strings.Repeat("x", statePage), Old: 1, New: 2}},
			left:    map[string]string{strings.Repeat("x", statePage): "too long"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			changes := test.changes
			if changes == nil {
				changes = idle
			}
			given := []byte(header + test.text)
			edit, err := EditState(given, changes)
			if err != nil {
				t.Fatal(err)
			}
			if string(edit.Addition) != test.want {
				t.Errorf("added:\n%q\nwant:\n%q", edit.Addition, test.want)
			}
			if string(given) != header+test.text {
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
		if len(edit.Addition) != 0 || len(edit.Changed) != 0 || edit.Left["mnt-idle.automount"] == "" {
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
			t.Errorf("%s: no error, changed %q with %q", name, edit.Changed, edit.Addition)
		}
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
		if len(edit.Addition) > 0 {
			if want := fmt.Sprintf("%s\ndev-id=%d\n\n", unit, fresh); !strings.HasSuffix(string(edit.Addition), want) {
				t.Errorf("added %q", edit.Addition)
			}
			if !bytes.Contains(text, fmt.Appendf(nil, "dev-id=%d", old)) && !bytes.Contains(text, []byte("dev-id=0")) {
				t.Error("a number was corrected that is not there")
			}
			if !slices.Contains(edit.Changed, unit) {
				t.Error("something was added without saying so")
			}
			if len(text) > statePage/2 {
				return // there may be blanks in it, which are for systemd to strip
			}
			again, err := EditState(slices.Concat(text, edit.Addition), []DeviceChange{{Unit: unit, Old: old, New: fresh}})
			if err != nil || len(again.Addition) != 0 {
				t.Errorf("a second time: %+v, %v", again, err)
			}
		}
		if !slices.Contains(edit.Changed, unit) && edit.Left[unit] == "" {
			t.Error("nothing was said about the unit")
		}
	})
}
