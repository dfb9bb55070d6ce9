package nsenter

import (
	"os"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

const (
	roleVariable = "TEST_ROLE"
)

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "chroot" {
		os.Exit(runChroot(os.Args[1]))
	}
	testenv.Main(m)
}

// open opens a child until the end of the test.
func open(t testing.TB, c *testenv.Child) *Process {
	t.Helper()
	return testenv.Open(t, c, Open)
}
