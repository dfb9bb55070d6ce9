// Package testproc opens the child processes of tests. It is imported by tests only, and
// is apart from testenv because the tests of nsenter import that.
package testproc

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Open opens a child process until the end of the test.
func Open(t testing.TB, c *testenv.Child) *nsenter.Process {
	t.Helper()
	return testenv.Open(t, c, nsenter.Open)
}
