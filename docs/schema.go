// Package docs has the published schema of a report, for tests.
package docs

import _ "embed" // for ReportSchema

// ReportSchema is the JSON schema of a report (report.schema.json).
//
//go:embed report.schema.json
var ReportSchema []byte
