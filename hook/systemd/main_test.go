package systemd

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

func TestMain(m *testing.M) {
	testenv.Main(m)
}
