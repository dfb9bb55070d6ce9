package e2e

import (
	"os"
	"strings"
	"testing"
)

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// awaitText waits until a process has written something to the file.
func awaitText(t *testing.T, path string) string {
	t.Helper()
	var text string
	waitUntil(t, path+" is written", func() bool {
		got, err := os.ReadFile(path)
		text = strings.TrimSpace(string(got))
		return err == nil && text != ""
	})
	return text
}
