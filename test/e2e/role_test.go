package e2e

import (
	"os"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestMain lets containers run this binary in a role, as touchers and masters.
func TestMain(m *testing.M) {
	lab.RunRole()
	os.Exit(m.Run())
}
