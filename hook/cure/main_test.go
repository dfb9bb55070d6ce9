package cure

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

func TestMain(m *testing.M) {
	testenv.Main(m)
}

// writeFile writes a file of a journal.
func writeFile(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// open opens a child process until the end of the test.
func open(t testing.TB, c *testenv.Child) *nsenter.Process {
	t.Helper()
	return testenv.Open(t, c, nsenter.Open)
}
