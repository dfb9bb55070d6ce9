package waiters

import (
	"os"
	"syscall"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

const (
	roleVariable = "TEST_ROLE"
)

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "access" {
		os.Exit(access())
	}
	testenv.Main(m)
}

// apart keeps a child out of the process group that is the automount's master.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
