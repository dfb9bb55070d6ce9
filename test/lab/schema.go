package lab

import (
	"bytes"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// reportSchema is the published schema; tests run in a folder of test/.
var reportSchema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	return compiler.Compile("../../docs/report.schema.json")
})

// validateReport fails the test if a report does not conform to its schema.
func validateReport(t testing.TB, text []byte) {
	t.Helper()
	schema, err := reportSchema()
	if err != nil {
		t.Fatal(err)
	}
	report, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err == nil {
		err = schema.Validate(report)
	}
	if err != nil {
		t.Errorf("report: %v\n%s", err, text)
	}
}
