package master

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

func TestMain(m *testing.M) {
	testenv.Main(m)
}

// open opens a child until the end of the test.
func open(t testing.TB, c *testenv.Child) *nsenter.Process {
	t.Helper()
	return testenv.Open(t, c, nsenter.Open)
}
