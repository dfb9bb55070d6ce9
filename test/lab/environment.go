package lab

import (
	"os"
	"strconv"
	"testing"
)

// IntFromEnvironment returns the number in a variable of the environment, which must be at
// least the given one; otherwise if the variable is empty.
func IntFromEnvironment(t *testing.T, name string, least, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least {
		t.Fatalf("%s=%q: want a number of at least %d", name, text, least)
	}
	return n
}
