package documents

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func (o object) names() []string { return slices.Sorted(maps.Keys(o.Properties)) }

// object is an object of a JSON schema.
type object struct {
	Required   []string            `json:"required"`
	Properties map[string]property `json:"properties"`
}

type property struct {
	Enum []string `json:"enum"`
}

// TestReportFields: the reference and the schema have the fields of the report, and the
// values of its enumerations.
func TestReportFields(t *testing.T) {
	var schema struct {
		object
		Defs map[string]object `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(read(t, "docs/report.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	report := fields(t, "hook/", "Report")
	have := sorted(report.names())
	mount := fields(t, "hook/", report["mounts"])
	text := section(t, reference, "## Report")
	same(t, "field of a report", column(table(t, text, "field"), 0), have)
	same(t, "field of a mount", column(table(t, text, "field of a mount"), 0), mount.names())
	same(t, "property of the schema", schema.names(), have)
	for name, typeName := range map[string]string{
		"mount": report["mounts"], "master": mount["master"], "waiter": report["waiting"], "problem": report["checkpoint"],
	} {
		same(t, "property of "+name+" in the schema", schema.Defs[name].names(), fields(t, "hook/", typeName).names())
		for _, required := range schema.Defs[name].Required {
			if _, ok := schema.Defs[name].Properties[required]; !ok {
				t.Errorf("schema: %s requires %s, which it does not have", name, required)
			}
		}
		for _, field := range schema.Defs[name].names() {
			if !strings.Contains(text, "`"+field+"`") {
				t.Errorf("%s: nothing of %s, a field of %s", reference, field, name)
			}
		}
	}
	enum := func(o object, field, typeName string) {
		same(t, field+" in the schema", o.Properties[field].Enum, constants(t, typeName))
	}
	enum(schema.object, "outcome", report["outcome"])
	enum(schema.object, "moment", report["moment"])
	enum(schema.Defs["mount"], "outcome", mount["outcome"])
	enum(schema.Defs["master"], "kind", "Kind")
}

// TestDoctorFields: the fields of a check that compatibility.md promises are there.
func TestDoctorFields(t *testing.T) {
	for _, row := range table(t, read(t, "docs/compatibility.md"), "what") {
		if strings.HasPrefix(row[0], "`doctor --json`") {
			documented := column([][]string{row}, 0)[3:] // after the command, version and checks
			same(t, "field of a check", documented, fields(t, "doctor/", "Check").names())
			return
		}
	}
	t.Error("docs/compatibility.md says nothing of doctor --json")
}

const metricPrefix = "autofs_restore"

// TestMetrics: the documents have each of the agent's metrics, and no other.
func TestMetrics(t *testing.T) {
	var all strings.Builder
	for _, text := range documents(t) {
		all.WriteString(text)
	}
	have := metrics(t)
	if len(have) < 10 {
		t.Errorf("only %q found", have)
	}
	for _, name := range have {
		if !regexp.MustCompile("`(" + metricPrefix + "_)?" + name + "[`{]").MatchString(all.String()) {
			t.Errorf("no document names the metric %s", name)
		}
	}
	documented := unique(regexp.MustCompile("`(?:"+metricPrefix+"_)?([a-z_]+_(?:total|seconds|info))[`{]"), all.String())
	documented = append(documented, unique(regexp.MustCompile(metricPrefix+`_([a-z_]+)`), all.String())...)
	for _, name := range documented {
		if !slices.Contains(have, name) {
			t.Errorf("the documents have the metric %s, which the agent has not", name)
		}
	}
}

// TestAgentOptions: the documents have each of the agent's options.
func TestAgentOptions(t *testing.T) {
	var all strings.Builder
	for _, text := range documents(t) {
		all.WriteString(text)
	}
	internal := []string{"--hook", "--run-directory", "--service-account", "--log-level"} // of the image; for tests
	for _, name := range flags(t, "cmd/autofs-restore-agent") {
		if slices.Contains(internal, name) {
			continue
		}
		if !regexp.MustCompile("`-?" + name[1:] + "[`= ]").MatchString(all.String()) {
			t.Errorf("no document names the agent's option %s", name)
		}
	}
}

// TestCapabilities: SECURITY.md, doctor and the tests have one list.
func TestCapabilities(t *testing.T) {
	capability := regexp.MustCompile(`"?(CAP_[A-Z_]+)"?`)
	var documented []string
	for _, row := range table(t, section(t, "SECURITY.md", "## What it needs"), "capability") {
		documented = append(documented, unique(capability, row[0])...)
	}
	var inDoctor strings.Builder
	for name := range sources(t, "doctor/") {
		inDoctor.WriteString(read(t, name))
	}
	same(t, "capability of doctor", documented, unique(regexp.MustCompile(`"(CAP_[A-Z_]+)"`), inDoctor.String()))
	_, list, _ := strings.Cut(read(t, "test/e2e/privileges_test.go"), "var needed = []string{")
	list, _, _ = strings.Cut(list, "}")
	var tested []string
	for _, name := range unique(regexp.MustCompile(`"([a-z_]+)"`), list) {
		tested = append(tested, "CAP_"+strings.ToUpper(name))
	}
	same(t, "capability of TestLeastPrivilege", documented, tested)
}

// TestRecoveries: the page has the recoveries in the order of the code.
func TestRecoveries(t *testing.T) {
	var documented []string
	for _, row := range table(t, section(t, "docs/crash-recovery.md", "## Recoveries, in order"), "") {
		direction := map[string]string{"undo": "rollBack", "finish": "rollForward"}[row[2]]
		documented = append(documented, row[1]+": "+direction)
	}
	if have := recoveries(t); !slices.Equal(documented, have) {
		t.Errorf("docs/crash-recovery.md has\n%q, the code\n%q", documented, have)
	}
}

// TestTestsExist: the tests that documents name are there.
func TestTestsExist(t *testing.T) {
	var all strings.Builder
	for _, name := range files(t, "_test.go") {
		all.WriteString(read(t, name))
	}
	for name, text := range documents(t) {
		for _, test := range unique(regexp.MustCompile(`\b(Test[A-Z]\w+)`), text) {
			if !strings.Contains(all.String(), "func "+test+"(t ") {
				t.Errorf("%s names %s: there is no such test", name, test)
			}
		}
	}
}

// TestTargets: the targets of make that documents name are there, and testing.md
// has each.
func TestTargets(t *testing.T) {
	have := unique(regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`), read(t, "Makefile"))
	for name, text := range documents(t) {
		for _, target := range unique(regexp.MustCompile("(?m)(?:`|^    )make ([a-z][a-z0-9-]*)"), text) {
			if !slices.Contains(have, target) {
				t.Errorf("%s: make %s: the Makefile has no such target", name, target)
			}
		}
	}
	testing := read(t, "docs/testing.md")
	for _, target := range have {
		if (strings.HasPrefix(target, "test") || strings.HasPrefix(target, "check")) && !strings.Contains(testing, "make "+target) {
			t.Errorf("docs/testing.md says nothing of make %s", target)
		}
	}
}

// TestPackages: architecture.md has each package of the program below hook.
func TestPackages(t *testing.T) {
	var have []string
	for name := range sources(t, "hook/") {
		if dir := filepath.Dir(name); !strings.HasSuffix(dir, "test") { // of tests
			have = append(have, dir)
		}
	}
	documented := slices.DeleteFunc(column(table(t, section(t, "docs/architecture.md", "## Packages"), "package"), 0),
		func(name string) bool { return !strings.HasPrefix(name, "hook") })
	same(t, "package", documented, sorted(have))
}
