package documents

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// program is the program under documentation, built once, with what its help says.
type program struct{ path, help string }

func build(t *testing.T) program {
	t.Helper()
	path := filepath.Join(t.TempDir(), "autofs-restore-hook")
	if out, err := exec.Command("go", "build", "-C", root, "-buildvcs=false", "-o", path, "./cmd/autofs-restore-hook").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program{path, run(t, path, "help")}
}

// run returns what the program writes, to either stream: some of the calls are wrong on purpose.
func run(t *testing.T, path string, args ...string) string {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var out bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, &out, &out
	_ = cmd.Run() // its words matter here, not its status
	return out.String()
}

// isCommand asks the program whether it has a command of that name. With --help
// nothing is done.
func (p program) isCommand(t *testing.T, word string) bool {
	return !strings.Contains(run(t, p.path, word, "--help"), "unknown command")
}

var (
	firstWord = regexp.MustCompile(`(?m)^ *([a-z]+)\b`)
	option    = regexp.MustCompile(`(?:^|[^-\w])(--[a-z][a-z-]+)`)
)

// commands are the first words of lines of the help that the program accepts.
func (p program) commands(t *testing.T) []string {
	var list []string
	for _, m := range firstWord.FindAllStringSubmatch(strings.ReplaceAll(p.help, ", ", "\n"), -1) {
		if word := m[1]; !slices.Contains(list, word) && p.isCommand(t, word) {
			list = append(list, word)
		}
	}
	return list
}

// options are those that the help, and that of each command, names, without those of
// other programs.
func (p program) options(t *testing.T) []string {
	text := p.help
	for _, c := range p.commands(t) {
		text += run(t, p.path, c, "--help")
	}
	return slices.DeleteFunc(unique(option, text), func(name string) bool { return slices.Contains(foreign, name) })
}

func unique(pattern *regexp.Regexp, text string) []string {
	var list []string
	for _, m := range pattern.FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// same fails for what only one of the lists has.
func same(t *testing.T, what string, documented, have []string) {
	t.Helper()
	if len(have) == 0 {
		t.Errorf("%s: none found in the program: has what this test reads moved?", what)
	}
	for _, name := range have {
		if !slices.Contains(documented, name) {
			t.Errorf("%s: the documents say nothing of %q", what, name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(have, name) {
			t.Errorf("%s: the documents have %q, which the program has not", what, name)
		}
	}
}

// section is the part of a document below a heading, to the next one of its level.
func section(t *testing.T, name, title string) string {
	t.Helper()
	_, text, ok := strings.Cut("\n"+read(t, name), "\n"+title+"\n")
	if !ok {
		t.Fatalf("%s has no heading %q", name, title)
	}
	level, _, _ := strings.Cut(title, " ")
	text, _, _ = strings.Cut(text, "\n"+level+" ")
	return text
}

// table are the rows of the table in a text whose first column has the heading.
func table(t *testing.T, text, first string) [][]string {
	t.Helper()
	var rows [][]string
	inside := false
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.ReplaceAll(strings.TrimSpace(line), `\|`, "/"), "|")
		if len(fields) < 3 {
			inside = false
			continue
		}
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		if inside && !strings.HasPrefix(fields[1], "---") {
			rows = append(rows, fields[1:])
		}
		inside = inside || fields[1] == first
	}
	if len(rows) == 0 {
		t.Fatalf("no table with the first column %q", first)
	}
	return rows
}

// column are the code spans of a column of a table, their first words only.
func column(rows [][]string, n int) []string {
	var list []string
	for _, row := range rows {
		for _, m := range span.FindAllStringSubmatch(row[n], -1) {
			list = append(list, strings.Fields(m[1])[0])
		}
	}
	return list
}

const reference = "docs/reference.md"

// foreign are options of other programs that stand alone in the documents.
var foreign = []string{
	"--action-script", "--manage-cgroups", "--no-default-config", // CRIU
	"--detach", "--image-path", "--manage-cgroups-mode", "--work-path", // runc, crun
	"--cgroupns", "--keep", "--name", "--rootfs", // podman
	"--checkpoint-dir", // LXC
}

// TestCommands: the commands and options of the reference are those of the program,
// and no document names another one.
func TestCommands(t *testing.T) {
	p := build(t)
	commands, options := p.commands(t), p.options(t)
	text := section(t, reference, "## Commands")
	same(t, "command", column(table(t, text, "command"), 0), commands)
	same(t, "option", column(table(t, text, "option"), 0), options)
	agent := flags(t, "cmd/autofs-restore-agent")
	for name, text := range documents(t) {
		for _, line := range calls(text) {
			words := strings.Fields(strings.TrimPrefix(line, "autofs-restore-hook"))
			if len(words) == 0 {
				continue
			}
			if word := words[0]; isWord(word) && !slices.Contains(commands, word) && !hook.IsStage(word) {
				t.Errorf("%s: %q: the program has no command %q", name, line, word)
			}
			for _, o := range unique(option, line) {
				if !slices.Contains(options, o) {
					t.Errorf("%s: %q: the program has no option %s", name, line, o)
				}
			}
		}
		for _, m := range span.FindAllStringSubmatch(prose(text), -1) {
			if word, _, _ := strings.Cut(strings.Fields(m[1])[0], "="); strings.HasPrefix(word, "--") &&
				!slices.Contains(slices.Concat(options, agent, foreign), word) {
				t.Errorf("%s: %s is an option of no program", name, word)
			}
		}
	}
}

var call = regexp.MustCompile("autofs-restore-hook +[a-z-][^`\n#|;\"]*")

// calls are the calls of the program in a document's code: what is to be typed, not
// what the program writes.
func calls(text string) []string {
	var list []string
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		if output.MatchString(line) {
			continue
		}
		for _, at := range call.FindAllStringIndex(line, -1) {
			if fenced || strings.HasPrefix(line, "    ") || strings.Count(line[:at[0]], "`")%2 == 1 {
				list = append(list, line[at[0]:at[1]])
			}
		}
	}
	return list
}

// output is a line that the program has written.
var output = regexp.MustCompile(`^    (OK|WARN|FAIL|level=)`)

func isWord(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsLetter(r) }) < 0 && strings.ToUpper(s) != s
}

// TestSettings: the settings of the reference are the fields of the configuration.
func TestSettings(t *testing.T) {
	var have []string
	c := reflect.TypeFor[hook.Config]()
	for i := range c.NumField() {
		name := regexp.MustCompile(`(.)([A-Z])`).ReplaceAllString(c.Field(i).Name, "$1-$2")
		have = append(have, strings.ToLower(name))
	}
	rows := table(t, section(t, reference, "## Configuration"), "setting")
	same(t, "setting", column(rows, 0), have)
	for _, row := range rows {
		file := filepath.Join(t.TempDir(), "conf")
		setting := strings.Trim(row[0], "`") + " = " + strings.Trim(row[1], "`")
		if err := os.WriteFile(file, []byte(setting+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := hook.ReadConfig(file); err != nil || got != (hook.Config{}) {
			t.Errorf("%s: %+v, %v: want the default", setting, got, err)
		}
	}
}

// TestExitStatuses: the statuses of the reference are those in the program.
func TestExitStatuses(t *testing.T) {
	var documented []string
	for _, row := range table(t, section(t, reference, "## Exit statuses"), "status") {
		documented = append(documented, row[0])
	}
	same(t, "exit status", documented, statuses(t))
}

// TestEnumerations: the values that the reference lists are those of the types.
func TestEnumerations(t *testing.T) {
	values := map[string][]string{}
	for _, row := range table(t, read(t, reference), "enumeration") {
		values[row[0]] = column([][]string{row}, 1)
	}
	report := fields(t, "hook/", "Report")
	cure := fields(t, "hook/", report["mounts"])["outcome"]
	for name, of := range map[string]string{
		"`outcome` of a report": report["outcome"], "`outcome` of a mount": cure, "`moment`": report["moment"],
		"`kind` of a master": "Kind", "`--strategy`": "Strategy", "`status` of a check of `doctor --json`": "Status",
	} {
		same(t, name, values[name], constants(t, of))
	}
	var types []string
	for k := autofs.Type(0); k.Valid(); k++ {
		types = append(types, k.String())
	}
	same(t, "`type`", values["`type`"], types)
	same(t, "outcome in outcomes.md", slices.Compact(slices.Sorted(slices.Values(
		column(table(t, read(t, "docs/outcomes.md"), "outcome"), 0)))), constants(t, cure))
}
