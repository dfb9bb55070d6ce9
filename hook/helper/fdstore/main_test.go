package fdstore

import (
	"os"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
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
