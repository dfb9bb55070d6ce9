// Package report has the results of a run: as JSON, as a table for people and as one line
// for a log.
//
// The names in a report come from the container, which may be hostile. Texts are
// truncated; tables and log lines quote unprintable characters.
package report
