package bench

import (
	"os"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

func TestMain(m *testing.M) {
	lab.RunRole()
	os.Exit(m.Run())
}
