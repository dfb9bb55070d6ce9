package anondev

import (
	"os"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

const (
	roleVariable = "TEST_ROLE"
)

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "churn" {
		os.Exit(churn())
	}
	testenv.Main(m)
}
