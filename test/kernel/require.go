// Package kernel tests hook/autofs against the kernel's own autofs, with small masters
// that remember the same numbers as systemd and automount. It needs root and /dev/autofs;
// it has its own mount namespace and leaves nothing behind.
//
//	cd test && go test ./kernel/...
package kernel

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
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

// Lacks skips the test on kernels before the version, which do not have a feature.
// REQUIRE=1 does not change that, because newer kernels run the test.
func Lacks(t testing.TB, major, minor int, feature string) {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	var x, y int
	if _, err := fmt.Sscanf(release, "%d.%d", &x, &y); err != nil {
		t.Fatalf("kernel release %q: %v", release, err)
	}
	if x < major || x == major && y < minor {
		t.Skipf("skipped: Linux %s lacks a feature of %d.%d: %s", release, major, minor, feature)
	}
}
