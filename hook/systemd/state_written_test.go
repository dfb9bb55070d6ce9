package systemd

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// readBack reads a state as systemd does (manager_deserialize_units,
// unit_deserialize_state): lines are stripped, of several values of one name in
// sections of one unit the last one counts. Jobs are not understood. Before
// version 240 lines are read into buffers: UNIT_NAME_MAX+2 and LINE_MAX.
func readBack(text []byte, version int) map[string]map[string]string {
	units := map[string]map[string]string{}
	_, rest, _ := strings.Cut(string(text), "\n\n")
	name, inside := "", false
	for len(rest) > 0 {
		size := len(rest)
		if version < 240 && inside {
			size = min(size, 2048-1)
		} else if version < 240 {
			size = min(size, 256+2-1)
		}
		if end := strings.IndexByte(rest, '\n'); end >= 0 {
			size = min(size, end+1)
		}
		line := strings.TrimSpace(rest[:size])
		rest = rest[size:]
		switch {
		case !inside:
			name, inside = line, true
			if units[name] == nil {
				units[name] = map[string]string{}
			}
		case line == "":
			inside = false
		default:
			field, value, _ := strings.Cut(line, "=")
			units[name][field] = value
		}
	}
	return units
}

// TestEditRealState corrects what real versions of systemd wrote.
func TestEditRealState(t *testing.T) {
	names := []string{
		"mnt-idle.automount", `mnt-with\x20blank.automount`, "mnt-covered.automount", "mnt-stacked.automount",
		"proc-sys-fs-binfmt_misc.automount",
	}
	for _, version := range []int{252, 257, 262} {
		t.Run(strconv.Itoa(version), func(t *testing.T) {
			text := realState(t, version)
			want := readBack(text, version)
			var served []ServedMount
			for i, unit := range names {
				pipe, err := strconv.Atoi(want[unit]["pipe-fd"])
				if err != nil {
					t.Fatalf("%s: %v", unit, err)
				}
				mount := ServedMount{Path: "/" + unit, Pipe: 1000 + uint64(pipe), Device: uint64(i)*1000 + 5}
				served = append(served, mount)
				want[unit]["dev-id"] = strconv.FormatUint(mount.Device, 10)
			}
			edit, err := editState(text, version, served, pipes)
			if err != nil {
				t.Fatal(err)
			}
			if corrected(edit) != len(names) || len(edit.Units) != len(names) {
				t.Errorf("%+v", edit.Units)
			}
			told := slices.Concat(text, edit.Addition)
			if got := readBack(told, version); !reflect.DeepEqual(got, want) {
				t.Error("systemd would not read the same with other numbers")
			}
			// It would all be right then.
			if edit, err = editState(told, version, served, pipes); err != nil || len(edit.Addition) != 0 || len(edit.Units) != len(names) {
				t.Errorf("a second time: %+v, %v", edit, err)
			}
		})
	}
}

func corrected(edit *StateEdit) (count int) {
	for i := range edit.Units {
		if edit.Units[i].Corrected() {
			count++
		}
	}
	return count
}

// TestEditLargeState corrects 1,000 of 2,000 units in more than 1 MB. Wherever
// the kernel may leave the write, each unit has its old or its new number.
func TestEditLargeState(t *testing.T) {
	for _, version := range []int{239, 252} {
		t.Run(strconv.Itoa(version), func(t *testing.T) { editLargeState(t, version) })
	}
}

func editLargeState(t *testing.T, version int) {
	const units = 2000
	filler := strings.Repeat("exported-log-rate-limit-interval=no\n", 14)
	var text strings.Builder
	text.WriteString(header)
	var served []ServedMount
	for i := range units {
		unit := fmt.Sprintf(`srv-%d\x20%d.automount`, i, i)
		text.WriteString(section(unit, fmt.Sprintf("dev-id=%d\n", i)+filler, i+10))
		if i%2 == 0 {
			served = append(served, ServedMount{Path: unit, Pipe: uint64(1010 + i), Device: uint64(1<<20 + i)})
		}
	}
	if text.Len() < 1<<20 {
		t.Fatalf("only %d bytes", text.Len())
	}
	edit, err := editState([]byte(text.String()), version, served, pipes)
	if err != nil {
		t.Fatal(err)
	}
	if corrected(edit) != len(served) || len(edit.Units) != units {
		t.Errorf("%d of %d corrected, want %d of %d", corrected(edit), len(edit.Units), len(served), units)
	}
	before := readBack([]byte(text.String()), version)
	written := []byte(text.String() + string(edit.Addition))
	cuts, last := 0, 0
	for cut := (text.Len() + statePage - 1) / statePage * statePage; ; cut += statePage {
		after := readBack(written[:min(cut, len(written))], version)
		if nameless := after[""]; len(nameless) > 0 {
			t.Errorf("cut at %d: a unit without a name has %v", cut, nameless)
		}
		delete(after, "")
		if len(after) != units {
			t.Fatalf("cut at %d: %d units, want %d", cut, len(after), units)
		}
		corrected := 0
		for _, c := range served {
			unit := c.Path
			switch after[unit]["dev-id"] {
			case strconv.FormatUint(c.Device, 10):
				corrected++
			case before[unit]["dev-id"]:
			default:
				t.Fatalf("cut at %d: %s has %v", cut, unit, after[unit])
			}
			after[unit]["dev-id"] = before[unit]["dev-id"]
		}
		if !reflect.DeepEqual(after, before) {
			t.Errorf("cut at %d: something else changed", cut)
		}
		if corrected < last {
			t.Errorf("cut at %d: %d units are corrected, one page before %d", cut, corrected, last)
		}
		last = corrected
		if cut >= len(written) {
			break
		}
		cuts++
	}
	if last != len(served) || cuts < 5 {
		t.Errorf("%d units corrected at last, want %d; %d cuts", last, len(served), cuts)
	}
}

// TestPaged adds at every place of a page: what fits into one page lies in one,
// and no section goes across two.
func TestPaged(t *testing.T) {
	for _, count := range []int{1, 3, 100, 300} {
		var sections []string
		for i := range count {
			sections = append(sections, told(fmt.Sprintf("mnt-%d.automount", i), i))
		}
		joined := strings.Join(sections, "")
		for offset := range 2 * statePage {
			out := paged(offset, 252, sections)
			if strings.ReplaceAll(string(out), " ", "") != joined {
				t.Fatalf("%d sections at %d: %q", count, offset, out)
			}
			inOnePage := offset/statePage == (offset+len(out)-1)/statePage
			padded := bytes.TrimLeft(out, " ")
			begin := offset + len(out) - len(padded)
			if len(joined) <= statePage && begin/statePage != (begin+len(padded)-1)/statePage {
				t.Fatalf("%d sections at %d: in two pages", count, offset)
			}
			if inOnePage && len(padded) != len(out) {
				t.Fatalf("%d sections at %d: blanks without a need", count, offset)
			}
			for boundary := (offset/statePage + 1) * statePage; boundary < offset+len(out); boundary += statePage {
				whole := strings.TrimRight(string(out[:boundary-offset]), " ")
				if whole != "" && !strings.HasSuffix(whole, "\n\n") {
					t.Fatalf("%d sections at %d: one goes across the page that ends at %d", count, offset, boundary)
				}
			}
		}
	}
	if out := paged(1, 252, nil); len(out) != 0 {
		t.Errorf("nothing to add: %q", out)
	}
}

// TestPadding: whatever its size, systemd reads the unit behind it, and another one
// without a name at most.
func TestPadding(t *testing.T) {
	longest := strings.Repeat("x", 245) + ".automount" // UNIT_NAME_MAX
	for size := range statePage + 1 {
		for _, version := range []int{235, 239, 240, 262} {
			text := header + string(padding(size, version)) + told(longest, 7)
			if len(text) != len(header)+size+len(told(longest, 7)) {
				t.Fatalf("%d, version %d: %d bytes", size, version, len(text))
			}
			units := readBack([]byte(text), version)
			if units[longest]["dev-id"] != "7" || len(units[""]) > 0 {
				t.Fatalf("%d, version %d: %v", size, version, units)
			}
		}
	}
	if units := readBack([]byte(header+string(padding(4000, 252))+told(longest, 7)), 239); units[longest]["dev-id"] == "7" {
		t.Error("version 239 reads long lines: this test shows nothing")
	}
}
