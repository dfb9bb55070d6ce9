// Package report says what was found and done: as JSON, as a table for a person and as
// one line for a log.
//
// The container decides how much there is to say and in which characters; what is
// reported is truncated and quoted accordingly.
package report
