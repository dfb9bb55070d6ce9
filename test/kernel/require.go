// Package kernel tests hook/autofs against the kernel's own autofs, with small
// masters that remember the same numbers systemd and automount do. It needs root
// and /dev/autofs; it makes a mount namespace of its own and leaves nothing.
//
//	cd test && go test ./kernel/...
package kernel

import (
	"os"
	"testing"
)

// Require skips the test unless cond holds. With REQUIRE=1 in the environment,
// as in CI, it fails it instead: a skipped test proves nothing.
func Require(t testing.TB, cond bool, reason string) {
	t.Helper()
	switch {
	case cond:
	case os.Getenv("REQUIRE") == "1":
		t.Fatalf("required: %s", reason)
	default:
		t.Skipf("skipped: %s", reason)
	}
}
