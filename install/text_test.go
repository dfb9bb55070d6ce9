package install

import (
	"fmt"
	"slices"
	"testing"
)

func TestScriptOf(t *testing.T) {
	for text, want := range map[string]string{
		"action-script /a":          "/a",
		"  action-script\t/a  \r\n": "/a\r",
		"action-script=/a\n":        "/a",
		`action-script "/a b"`:      "/a b",
		`action-script="/a b" x`:    "/a b",
		`action-script "/a`:         "",
		"action-script /a # x":      "/a",
		"action-script /a#b":        "/a#b",
		"action-script #/a":         "",
		"#action-script /a":         "",
		"# action-script /a":        "",
		"action-script":             "",
		"action-scripts /a":         "",
		"--action-script /a":        "",
		"":                          "",
	} {
		if want == "/a\r" {
			want = "/a" // CRIU would look for a file with that name, a person means this one
		}
		if got := scriptOf(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestAppendAndRemove restores any text byte for byte.
func TestAppendAndRemove(t *testing.T) {
	for _, text := range []string{"", "\n", "x", "x\n", "x\n\n", "x\r\ny", "action-script /b\n", "#"} {
		added, newline := appendLine([]byte(text), "action-script /a\n")
		if got := replaceLines(added, callsAny("/a"), "", newline); string(got) != text {
			t.Errorf("%q became %q", text, got)
		}
		more := append(slices.Clone(added), "more\n"...)
		want := text
		if newline {
			want += "\n"
		}
		if got := replaceLines(more, callsAny("/a"), "", newline); string(got) != want+"more\n" {
			t.Errorf("%q, with more, became %q", text, got)
		}
	}
}

// TestReplaceLines puts the line in the place of the first one that it replaces.
func TestReplaceLines(t *testing.T) {
	for text, want := range map[string]string{
		"action-script /a\n":                         "new\n",
		"x\naction-script /b\ny":                     "x\nnew\ny",
		"action-script /b\naction-script=/a\nx\n":    "new\nx\n",
		"action-script /c\naction-script \"/a\" # z": "action-script /c\nnew\n",
		"action-script\nx\n":                         "action-script\nx\n",
	} {
		if got := replaceLines([]byte(text), callsAny("/a", "/b"), "new\n", false); string(got) != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

func TestHooksDirectories(t *testing.T) {
	for text, want := range map[string][]string{
		"":                            nil,
		"# hooks_dir = [\"/a\"]\n":    nil,
		"hooks_dir = []":              {},
		"hooks_dir_x = [\"/a\"]":      nil,
		"hooks_dir=[\"/a\", '/b',]\n": {"/a", "/b"},
		"[x]\nhooks_dir = [ # \"/no\"\n \"/a\", # no\n# \"/no\"\n\t\"/b c#d\"\n]\nz = \"/no\"\n": {"/a", "/b c#d"},
		"hooks_dir = [\"/a\"]\nhooks_dir = [\"/b\"]\n":                                           {"/b"},
		"hooks_dir = [\"/a": {"/a"},
		"hooks_dir = [":     {},
	} {
		if got := hooksDirectories(text); !slices.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestVersions(t *testing.T) {
	for text, want := range map[string]string{
		"Version: 3.19": "3.19", "4.2.1": "4.2.1", "v1.2": "1.2", "runc version 1.1.15+ds1": "1.1.15",
		"containerd github.com/containerd/containerd/v2 2.1.9~ds1 x": "2.1.9", "3.19-rc1": "3.19", "3.x": "", "four": "", "": "",
		"3": "", "99999999999999999999.1": "", "1.99999999999999999999": "", ".5": "", "1..2": "",
	} {
		v, ok := parseVersion(text)
		if got := fmt.Sprint(v); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %s, %t, want %q", text, got, ok, want)
		}
	}
	for _, less := range [][2]Version{{{3, 18}, {3, 19}}, {{3, 9}, {3, 19}}, {{2, 20}, {3, 19}}, {{4, 1}, {4, 1, 1}}} {
		if !less[0].Less(less[1]) || less[1].Less(less[0]) || less[0].Less(less[0]) {
			t.Errorf("%s is not before %s", less[0], less[1])
		}
	}
}
