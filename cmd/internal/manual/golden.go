package manual

import (
	"bytes"
	"os"
	"testing"
)

// Check compares a file with what it has to be, or writes it.
func Check(t *testing.T, path string, want []byte, update bool) {
	t.Helper()
	if update {
		if err := os.WriteFile(path, want, 0o644); err != nil { //nolint:forbidigo // the project's own
			t.Error(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the program's options make; run: go generate ./cmd/...", path)
	}
}
