package report

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/forecast"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
)

type schema struct {
	Const      any                `json:"const"`
	Enum       []string           `json:"enum"`
	Required   []string           `json:"required"`
	Properties map[string]*schema `json:"properties"`
	Defs       map[string]*schema `json:"$defs"`
}

// TestSchema: the published schema has the fields and values of the types. The
// end-to-end tests validate real reports with it.
func TestSchema(t *testing.T) {
	data, err := os.ReadFile("../../docs/report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	if s.Properties["schema"].Const != float64(Schema) {
		t.Errorf("schema %v, want %d", s.Properties["schema"].Const, Schema)
	}
	mount := s.Defs["mount"]
	for name, test := range map[string]struct {
		of    *schema
		value any
	}{
		"report": {&s, Report{}}, "mount": {mount, Mount{}}, "master": {s.Defs["master"], Master{}},
		"problem": {s.Defs["problem"], forecast.Problem{}}, "waiter": {s.Defs["waiter"], container.Waiter{}},
	} {
		var fields, required, properties []string
		for field := range fieldsOf(test.value) {
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			fields = append(fields, name)
			if options == "" {
				required = append(required, name)
			}
		}
		for p := range test.of.Properties {
			properties = append(properties, p)
		}
		slices.Sort(fields)
		slices.Sort(required)
		slices.Sort(properties)
		slices.Sort(test.of.Required)
		if !slices.Equal(fields, properties) || !slices.Equal(required, test.of.Required) {
			t.Errorf("%s: the schema has %q, of these required %q; the type has %q and %q", name, properties, test.of.Required, fields, required)
		}
	}
	for name, test := range map[string]struct{ enum, want []string }{
		"outcome": {s.Properties["outcome"].Enum, texts(Repaired, NothingToDo, Partial, Failed, Planned)},
		"mount's outcome": {
			mount.Properties["outcome"].Enum,
			texts(plan.Healthy, plan.Preserved, plan.Reexecuted, plan.Restarted, plan.Reloaded, plan.Unrepaired),
		},
		"kind": {s.Defs["master"].Properties["kind"].Enum, texts(master.Systemd, master.Automount, master.Other, master.None, master.Outside)},
		"type": {mount.Properties["type"].Enum, []string{autofs.Direct.String(), autofs.Indirect.String(), autofs.Offset.String()}},
	} {
		slices.Sort(test.enum)
		slices.Sort(test.want)
		if !slices.Equal(test.enum, test.want) {
			t.Errorf("%s: the schema has %q, want %q", name, test.enum, test.want)
		}
	}
}

// fieldsOf yields the fields of a struct that are in its JSON form.
func fieldsOf(value any) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range reflect.TypeOf(value).NumField() {
			if f := reflect.TypeOf(value).Field(i); f.Tag.Get("json") != "-" && !yield(f) {
				return
			}
		}
	}
}

func texts[T ~string](list ...T) []string {
	var all []string
	for _, t := range list {
		all = append(all, string(t))
	}
	return all
}
