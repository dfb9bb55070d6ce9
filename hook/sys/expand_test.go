package sys

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TestExpandFiles: the table of open files grows in time.
func TestExpandFiles(t *testing.T) {
	size := func() string {
		text, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "\nFDSize:\t")
		value, _, _ := strings.Cut(rest, "\n")
		return value
	}
	const want = "2048"
	if size() == want {
		t.Fatalf("the table has room for %s files already", want)
	}
	ExpandFiles(2000)
	for deadline := time.Now().Add(5 * time.Second); size() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("room for %s files, want %s", size(), want)
		}
	}
}
