package lab

import "testing"

// TestReportSchema: the published schema is one.
func TestReportSchema(t *testing.T) {
	if _, err := reportSchema(); err != nil {
		t.Fatal(err)
	}
}
