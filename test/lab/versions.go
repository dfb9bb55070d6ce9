package lab

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Version returns the version of a program of the node: the first word of its --version
// output that starts with a digit.
func Version(program string) string {
	text, err := exec.Command(program, "--version").CombinedOutput()
	if err != nil {
		return ""
	}
	for word := range strings.FieldsSeq(string(text)) {
		if word[0] >= '0' && word[0] <= '9' {
			// Debian's: "1.7.24~ds1", "1.1.15+ds1".
			return strings.FieldsFunc(word, func(c rune) bool { return c == '+' || c == '~' })[0]
		}
	}
	return ""
}

// NodeName returns the name of the node's distribution.
func NodeName() string {
	text, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(text)) {
		if name, found := strings.CutPrefix(line, "PRETTY_NAME="); found {
			return strings.Trim(name, "\"\n")
		}
	}
	return ""
}

// CRIUAtLeast reports whether the node's CRIU has this version or a later one.
func CRIUAtLeast(major, minor int) bool {
	var x, y int
	_, _ = fmt.Sscanf(Version("criu"), "%d.%d", &x, &y) // 0.0 is none
	return x > major || x == major && y >= minor
}
