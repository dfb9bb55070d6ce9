package lab

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Version is what a program of the node says its version is, without its name:
// the first word of its --version that begins with a digit.
func Version(program string) string {
	text, err := exec.Command(program, "--version").CombinedOutput()
	if err != nil {
		return ""
	}
	for word := range strings.FieldsSeq(string(text)) {
		if word[0] >= '0' && word[0] <= '9' {
			version, _, _ := strings.Cut(word, "+")
			return version
		}
	}
	return ""
}

// NodeName is the name of the distribution that the node runs.
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
