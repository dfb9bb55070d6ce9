package systemd

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// section is how systemd writes the state of one automount unit, shortened.
func section(unit, device string, pipe int) string {
	return fmt.Sprintf("%s\nstate=waiting\nresult=success\n%spipe-fd=%d\ntransient=no\n\n", unit, device, pipe)
}

const header = "last-transaction-id=2\ncurrent-job-id=69\nnotify-socket=/run/systemd/notify\n\n"

// told is a section with nothing but a number.
func told(unit string, number int) string { return fmt.Sprintf("%s\ndev-id=%d\n\n", unit, number) }

// pipes gives descriptor 38 the pipe 1038, and so on; there is none below 10.
func pipes(fd int) (uint64, error) {
	if fd < 10 {
		return 0, errors.New("no pipe")
	}
	return uint64(fd) + 1000, nil
}

const idle = "mnt-idle.automount"

func TestEditState(t *testing.T) {
	mounted := func(path string, pipe, device uint64) ServedMount {
		return ServedMount{Path: path, Pipe: 1000 + pipe, Device: device}
	}
	at := mounted("/mnt/idle", 38, 1048576)
	stale := UnitState{Unit: idle, Pipe: 1038, OldDevice: 148, Device: 1048576}
	right := UnitState{Unit: idle, Pipe: 1038, OldDevice: 1048576, Device: 1048576}
	tests := map[string]struct {
		text   string        // after the header
		served []ServedMount // default: at
		want   string        // what is added
		units  []UnitState
	}{
		"the number of one unit": {
			text: section(idle, "dev-id=148\n", 38), want: told(idle, 1048576), units: []UnitState{stale},
		},
		"right already": {
			text: section(idle, "dev-id=1048576\n", 38), units: []UnitState{right},
		},
		"not active: no pipe": {
			text: idle + "\ndev-id=0\n\n" + section("a.service", "", 38),
		},
		"no mount with its pipe": {
			text:  section(idle, "dev-id=148\n", 39),
			units: []UnitState{{Unit: idle, Pipe: 1039, OldDevice: 148, Problem: "no autofs mount has its pipe"}},
		},
		"nothing mounted": {
			text: section(idle, "dev-id=148\n", 38), served: []ServedMount{},
			units: []UnitState{{Unit: idle, Pipe: 1038, OldDevice: 148, Problem: "no autofs mount has its pipe"}},
		},
		"its descriptor is no pipe": {
			text:  section(idle, "dev-id=148\n", 3),
			units: []UnitState{{Unit: idle, Problem: `descriptor "3": no pipe`}},
		},
		"no number": {
			text:  section(idle, "", 38),
			units: []UnitState{{Unit: idle, Pipe: 1038, Problem: `is "", not a number`}},
		},
		"a name that is shortened to a hash": {
			text: section("mnt-0123.automount", "dev-id=148\n", 38), want: told("mnt-0123.automount", 1048576),
			units: []UnitState{{Unit: "mnt-0123.automount", Pipe: 1038, OldDevice: 148, Device: 1048576}},
		},
		"the pipe of another type of unit": {
			text: section("mnt-idle.socket", "dev-id=148\n", 38),
		},
		"the same superblock at two paths": {
			text: section(idle, "dev-id=148\n", 38), served: []ServedMount{at, mounted("/other", 38, 1048576)},
			want: told(idle, 1048576), units: []UnitState{stale},
		},
		"two superblocks, one at its path": {
			text: section(idle, "dev-id=148\n", 38), served: []ServedMount{mounted("/other", 38, 7), at, mounted("/third", 38, 8)},
			want: told(idle, 1048576), units: []UnitState{stale},
		},
		"two superblocks, none at its path": {
			text: section(idle, "dev-id=148\n", 38), served: []ServedMount{mounted("/other", 38, 7), mounted("/third", 38, 8)},
			units: []UnitState{{Unit: idle, Pipe: 1038, OldDevice: 148, Problem: "different device numbers"}},
		},
		"two superblocks at its path": {
			text: section(idle, "dev-id=148\n", 38), served: []ServedMount{at, mounted("/mnt/idle", 38, 7)},
			units: []UnitState{{Unit: idle, Pipe: 1038, OldDevice: 148, Problem: "different device numbers"}},
		},
		"two numbers: systemd takes the later one": {
			text: section(idle, "dev-id=5\ndev-id=148\n", 38), want: told(idle, 1048576), units: []UnitState{stale},
		},
		"two sections: systemd takes the later one": {
			text: section(idle, "dev-id=5\n", 38) + section(idle, "dev-id=148\n", 38), want: told(idle, 1048576), units: []UnitState{stale},
		},
		"two sections, the later one is right": {
			text: section(idle, "dev-id=148\n", 38) + told(idle, 1048576), units: []UnitState{right},
		},
		"two units that swap their numbers": {
			text:   section("a.automount", "dev-id=7\n", 38) + section("b.automount", "dev-id=8\n", 39),
			served: []ServedMount{mounted("/a", 38, 8), mounted("/b", 39, 7)},
			want:   told("a.automount", 8) + told("b.automount", 7),
			units:  []UnitState{{Unit: "a.automount", Pipe: 1038, OldDevice: 7, Device: 8}, {Unit: "b.automount", Pipe: 1039, OldDevice: 8, Device: 7}},
		},
		"names that are parts of others": {
			text:  section("x-mnt-idle.automount", "dev-id=2\n", 40) + section(idle, "dev-id=148\n", 38) + section("mnt-idle.mount", "dev-id=3\n", 38),
			want:  told(idle, 1048576),
			units: []UnitState{stale, {Unit: "x-mnt-idle.automount", Pipe: 1040, OldDevice: 2, Problem: "no autofs mount"}},
		},
		"odd names": {
			text:   section(`mnt-with\x20blank.automount`, "dev-id=1\n", 38) + section("-.automount", "dev-id=3\n", 39),
			served: []ServedMount{mounted("/mnt/with blank", 38, 11), mounted("/", 39, 13)},
			want:   told("-.automount", 13) + told(`mnt-with\x20blank.automount`, 11),
			units: []UnitState{
				{Unit: "-.automount", Pipe: 1039, OldDevice: 3, Device: 13}, {Unit: `mnt-with\x20blank.automount`, Pipe: 1038, OldDevice: 1, Device: 11},
			},
		},
		"a value that looks like the line": {
			text: idle + "\ndev-id=148\npipe-fd=38\nstatus-text=dev-id=1\ndev-id-old=2\nx-dev-id=3\n dev-id=4\n\n",
			want: told(idle, 1048576), units: []UnitState{stale},
		},
		"jobs": {
			// A job ends with an empty line of its own, then comes the unit's.
			text: idle + "\ndev-id=148\npipe-fd=38\njob\njob-id=5\njob-type=start\n\n\n" +
				"a.service\njob\njob-id=6\n\njob\njob-id=7\njob-type=nop\n\n\n" + section("b.service", "", 37),
			want: told(idle, 1048576), units: []UnitState{stale},
		},
		"requests that wait": {
			text:  section(idle, "dev-id=1048576\ntoken=18\ntoken=20\n", 38),
			units: []UnitState{{Unit: idle, Pipe: 1038, OldDevice: 1048576, Device: 1048576, Waiting: true}},
		},
		"a name of a page": {
			text: section(strings.Repeat("x", statePage)+".automount", "dev-id=1\n", 38),
			units: []UnitState{{
				Unit: strings.Repeat("x", statePage) + ".automount", Pipe: 1038, OldDevice: 1, Device: 1048576, Problem: "too long",
			}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			served := test.served
			if served == nil {
				served = []ServedMount{at}
			}
			given := []byte(header + test.text)
			edit, err := editState(given, 252, served, pipes)
			if err != nil {
				t.Fatal(err)
			}
			if string(edit.Addition) != test.want {
				t.Errorf("added:\n%q\nwant:\n%q", edit.Addition, test.want)
			}
			if string(given) != header+test.text {
				t.Error("the text that was given was changed in place")
			}
			if len(edit.Units) != len(test.units) {
				t.Fatalf("%+v, want %+v", edit.Units, test.units)
			}
			for i, want := range test.units {
				got := edit.Units[i]
				if !strings.Contains(got.Problem, want.Problem) || (got.Problem == "") != (want.Problem == "") {
					t.Errorf("%s: problem %q, want %q", got.Unit, got.Problem, want.Problem)
				}
				if got.Problem = want.Problem; got != want {
					t.Errorf("%+v, want %+v", got, want)
				}
			}
		})
	}
}

func TestEditStateLeavesWhatIsNoNumber(t *testing.T) {
	for _, value := range []string{"", "x", "-1", "+148", "148 ", " 148", "0x94", "148.0", "18446744073709551616", "148\x00", "٣"} {
		for _, text := range []string{section(idle, "dev-id="+value+"\n", 38), idle + "\ndev-id=148\npipe-fd=x" + value + "\n\n"} {
			edit, err := editState([]byte(header+text), 252, []ServedMount{{Path: "/mnt/idle", Pipe: 1038, Device: 7}}, pipes)
			if err != nil {
				t.Fatalf("%q: %v", value, err)
			}
			if len(edit.Addition) != 0 || len(edit.Units) != 1 || edit.Units[0].Problem == "" || edit.Units[0].Corrected() {
				t.Errorf("%q: %+v", value, edit)
			}
		}
	}
}

func TestEditStateRefuses(t *testing.T) {
	whole := header + section(idle, "dev-id=148\n", 38)
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
		if edit, err := editState([]byte(text), 252, []ServedMount{{Pipe: 1038, Device: 7}}, pipes); err == nil {
			t.Errorf("%s: no error, %+v with %q", name, edit.Units, edit.Addition)
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

// FuzzEditState looks that only numbers are added that differ, for units that are
// in the state.
func FuzzEditState(f *testing.F) {
	for _, version := range []int{252, 257, 262} {
		f.Add(realState(f, version), uint64(35))
	}
	f.Add([]byte(header+section("a.automount", "dev-id=1\ntoken=2\n", 38)), uint64(10))
	f.Fuzz(func(t *testing.T, text []byte, fresh uint64) {
		same := func(int) (uint64, error) { return 7, nil } // each unit has this pipe
		served := []ServedMount{{Pipe: 7, Device: fresh}}
		edit, err := editState(text, 252, served, same)
		if err != nil {
			return
		}
		corrected := 0
		for i := range edit.Units {
			u := &edit.Units[i]
			if !bytes.Contains(text, []byte(u.Unit+"\n")) {
				t.Errorf("%q is not in the state", u.Unit)
			}
			if u.Corrected() {
				corrected++
				if !bytes.Contains(edit.Addition, fmt.Appendf(nil, "%s\ndev-id=%d\n\n", u.Unit, fresh)) {
					t.Errorf("%q is not corrected with %q", u.Unit, edit.Addition)
				}
			}
		}
		if corrected != bytes.Count(edit.Addition, []byte("\n\n")) {
			t.Errorf("%d units, added %q", corrected, edit.Addition)
		}
		if corrected == 0 || len(text) > statePage/2 {
			return // there may be blanks in it, which are for systemd to strip
		}
		again, err := editState(slices.Concat(text, edit.Addition), 252, served, same)
		if err != nil || len(again.Addition) != 0 {
			t.Errorf("a second time: %+v, %v", again, err)
		}
	})
}
