package testenv

import (
	"os"
	"path/filepath"
	"testing"
)

// WriteFile writes a file, and makes its directory.
func WriteFile(t testing.TB, path, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o700) //nolint:forbidigo // of a test
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o600) //nolint:forbidigo // of a test
	}
	if err != nil {
		t.Fatal(err)
	}
}
