package hook

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

func TestParseConfig(t *testing.T) {
	strict := Config{Strict: true}
	for name, test := range map[string]struct {
		text string
		want Config
		say  string // "" for success
	}{
		"empty":              {"", Config{}, ""},
		"comments":           {"# strict = true\n\n  # more\n", Config{}, ""},
		"strict":             {"strict = true\n", strict, ""},
		"no newline":         {"strict=true", strict, ""},
		"not strict":         {"strict = false\n", Config{}, ""},
		"blanks, a comment":  {"\t strict\t=  true  # since Monday\r\n", strict, ""},
		"the last one":       {"strict = true\nstrict = false\n", Config{}, ""},
		"a short form":       {"strict = 1\n", strict, ""},
		"no value":           {"strict\n", Config{}, `line 1: strict = ""`},
		"an empty value":     {"strict =\n", Config{}, `line 1: strict = ""`},
		"commented value":    {"strict = # true\n", Config{}, `line 1: strict = ""`},
		"another value":      {"\n\nstrict = yes\n", Config{}, `line 3: strict = "yes": want true or false`},
		"two values":         {"strict = true = false\n", Config{}, "want true or false"},
		"another setting":    {"strict = true\nlenient = true\n", Config{}, `line 2: unknown setting "lenient"`},
		"capitals":           {"Strict = true\n", Config{}, `unknown setting "Strict"`},
		"no name":            {"= true\n", Config{}, `unknown setting ""`},
		"a byte order mark":  {"\ufeffstrict = true\n", Config{}, "unknown setting"},
		"a control sequence": {"\x1b[2J = true\n", Config{}, `"\x1b[2J"`},
		"a line too long":    {"#" + strings.Repeat("x", maxConfig), Config{}, "token too long"},
		"replaced":           {"reexecute-replaced = true\n", Config{ReexecuteReplaced: true}, ""},
		"both":               {"reexecute-replaced = true\nstrict = true\n", Config{true, true}, ""},
		"replaced, no value": {"strict = true\nreexecute-replaced\n", Config{}, `line 2: reexecute-replaced = ""`},
	} {
		c, err := parseConfig(strings.NewReader(test.text))
		switch {
		case test.say == "" && (err != nil || c != test.want):
			t.Errorf("%s: %+v, %v", name, c, err)
		case test.say != "" && (err == nil || !strings.Contains(err.Error(), test.say) || c != Config{}):
			t.Errorf("%s: %+v, %v, want %q", name, c, err, test.say)
		}
	}
	gone := errors.New("gone")
	if c, err := parseConfig(iotest.ErrReader(gone)); !errors.Is(err, gone) || c.Strict {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestReadConfig(t *testing.T) {
	dir := t.TempDir()
	file, link, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	err := errors.Join(os.WriteFile(file, []byte("strict = true\n"), 0o600), os.Symlink(file, link), unix.Mkfifo(pipe, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := ReadConfig(file); err != nil || !c.Strict {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := ReadConfig(filepath.Join(dir, "missing")); err != nil || c.Strict {
		t.Errorf("missing: %+v, %v", c, err)
	}
	if c, err := ReadConfig(pipe); err != nil || c.Strict { // and it does not wait for a writer
		t.Errorf("a pipe: %+v, %v", c, err)
	}
	for path, want := range map[string]error{dir: unix.EISDIR, link: unix.ELOOP, filepath.Join(file, "below"): unix.ENOTDIR} {
		c, err := ReadConfig(path)
		if !errors.Is(err, want) || errors.Is(err, fs.ErrNotExist) || c.Strict || !strings.HasPrefix(err.Error(), "configuration") ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("%s: %+v, %v, want %v", path, c, err, want)
		}
	}
	if err := os.WriteFile(file, []byte("strict = perhaps\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := ReadConfig(file); err == nil || c.Strict || !strings.Contains(err.Error(), file+", line 1: ") {
		t.Errorf("%+v, %v", c, err)
	}
}
