package fdstore

import (
	"os"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Verb {
		if Run(os.Args[2:]) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	testenv.Main(m)
}

// open opens a child until the end of the test.
func open(t testing.TB, c *testenv.Child) *nsenter.Process {
	t.Helper()
	return testenv.Open(t, c, nsenter.Open)
}
