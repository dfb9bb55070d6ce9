package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// installed is the path of the installed program.
const installed = "/usr/libexec/oci/hooks.d/autofs-restore-hook"

// nodeFiles describes every file of the node: name, kind, mode, owner, size and link, the
// date except of folders, and the content of files that an installation may change.
// dpkg's own data are left out.
func nodeFiles(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", `
		find / -xdev \( -path /var/lib/dpkg -o -path /var/cache -o -path /var/log \) -prune -o \
			\( -type d -printf '%p %y %m %U %G\n' -o -printf '%p %y %m %U %G %s %l %T@\n' \) | sort
		find /etc /usr/libexec /usr/share/containers /var/lib/autofs-restore-hook -xdev -type f -exec cksum {} + 2>/dev/null | sort -k3`).Output()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	return string(out)
}

// checkNodeFiles reports differences from before.
func checkNodeFiles(t *testing.T, before string) {
	t.Helper()
	for _, change := range lab.Changes(strings.Split(before, "\n"), strings.Split(nodeFiles(t), "\n")) {
		t.Errorf("the node's files: %s", change)
	}
}

// mustRun runs the program, which must exit with 0, and returns its output.
func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	r := lab.RunHook(t, nil, nil, args...)
	if r.Status != 0 {
		t.Errorf("%q: exit status %d\n%s%s", args, r.Status, r.Stdout, r.Stderr)
	}
	return string(r.Stdout)
}

// restoreInstalled restores a container on a node where the program is installed, without
// further preparation.
func restoreInstalled(t *testing.T, s *snapshot) {
	t.Helper()
	doctor(t)
	r := s.Restore(t, lab.RestoreOptions{})
	checkWorks(t, s, r)
	if text := doctor(t); !strings.Contains(text, "OK    reports              1 of the last 1") {
		t.Errorf("doctor does not list the report:\n%s", text)
	}
	r.Kill(t)
}

// doctor runs doctor of the installed program, which must find no problem of the node.
func doctor(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(installed, "doctor").CombinedOutput()
	if err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	return string(out)
}

// TestInstall installs, restores, and uninstalls.
func TestInstall(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	lab.InstallActionScript(t, "")
	if err := os.RemoveAll("/run/autofs-restore-hook"); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{"the machine's engines": nil, "everything": {"--engine", "all"}} {
		t.Run(name, func(t *testing.T) {
			before := nodeFiles(t)
			if r := lab.RunHook(t, nil, nil, "doctor"); r.Status != 2 || !strings.Contains(strings.Join(strings.Fields(string(r.Stdout)), " "), "nothing calls the program next: autofs-restore-hook install") {
				t.Errorf("doctor, before: exit status %d\n%s", r.Status, r.Stdout)
			}
			mustRun(t, append([]string{"install", "--dry-run"}, args...)...)
			checkNodeFiles(t, before)
			t.Logf("\n%s", mustRun(t, append([]string{"install"}, args...)...))
			if text := mustRun(t, append([]string{"install"}, args...)...); !strings.Contains(text, "nothing to change") {
				t.Errorf("the second time: %s", text)
			}
			restoreInstalled(t, s)
			t.Logf("\n%s", mustRun(t, "uninstall"))
			checkNodeFiles(t, before)
			if files := lab.RunFiles(t); len(files) > 0 {
				t.Errorf("left: %q", files)
			}
		})
	}
}

// TestInstallOldCRIU has a stand-in for CRIU with a version that is too old. Nothing is
// written.
func TestInstallOldCRIU(t *testing.T) {
	requireHook(t)
	lab.InstallActionScript(t, "")
	const standIn = "/usr/local/sbin/criu"
	if err := os.WriteFile(standIn, []byte("#!/bin/sh\necho 'Version: 3.18'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(standIn)
	before := nodeFiles(t)
	for _, args := range [][]string{{"install"}, {"install", "--engine", "criu"}} {
		r := lab.RunHook(t, nil, nil, args...)
		if r.Status != 1 || !strings.Contains(r.Stderr, standIn+" is version 3.18: before 3.19") || !strings.Contains(r.Stderr, "--engine podman") {
			t.Errorf("%q: exit status %d: %s", args, r.Status, r.Stderr)
		}
		checkNodeFiles(t, before)
	}
}

// TestPackage is TestInstall with the Debian package.
func TestPackage(t *testing.T) {
	requireHook(t)
	lab.Require(t, lab.Hook() == filepath.Join(lab.Checkout(), "bin/autofs-restore-hook"), "the package has another program than HOOK")
	file := packageFile(t)
	s := checkpoint(t)
	lab.InstallActionScript(t, "")
	if err := os.RemoveAll("/run/autofs-restore-hook"); err != nil {
		t.Fatal(err)
	}
	dpkg := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("dpkg", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("dpkg %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	before := nodeFiles(t)
	for range 2 { // the second time is an upgrade
		t.Logf("\n%s", dpkg("--install", file))
	}
	if target, err := os.Readlink("/usr/sbin/autofs-restore-hook"); err != nil || filepath.Join("/usr/sbin", target) != installed {
		t.Errorf("the program in the search path is %q, %v", target, err)
	}
	restoreInstalled(t, s)
	dpkg("--remove", "autofs-restore-hook")
	if text := readIfThere(defaultConf); strings.Contains(text, "autofs-restore-hook") {
		t.Errorf("%s after the removal: %q", defaultConf, text)
	}
	dpkg("--purge", "autofs-restore-hook")
	checkNodeFiles(t, before)
	if files := lab.RunFiles(t); len(files) > 0 {
		t.Errorf("left: %q", files)
	}
}

// TestPackageWithoutCRIU: the package is installed and removed all the same.
func TestPackageWithoutCRIU(t *testing.T) {
	lab.RequireNode(t)
	file := packageFile(t)
	lab.InstallActionScript(t, "")
	if err := os.Rename("/usr/sbin/criu", "/usr/sbin/criu.away"); err != nil {
		t.Fatal(err)
	}
	defer os.Rename("/usr/sbin/criu.away", "/usr/sbin/criu")
	before := nodeFiles(t)
	for _, args := range [][]string{{"--install", file}, {"--purge", "autofs-restore-hook"}} {
		out, err := exec.Command("dpkg", args...).CombinedOutput()
		if err != nil {
			t.Errorf("dpkg %q: %v\n%s", args, err, out)
		}
		t.Logf("\n%s", out)
		if text := readIfThere(defaultConf); text != "" {
			t.Errorf("%s: %q", defaultConf, text)
		}
	}
	checkNodeFiles(t, before)
}

// packageFile is the Debian package for this machine that make dist has made.
func packageFile(t *testing.T) string {
	t.Helper()
	packages, _ := filepath.Glob(filepath.Join(lab.Checkout(), "bin/dist/*_"+runtime.GOARCH+".deb"))
	lab.Require(t, len(packages) == 1, "no package in bin/dist: run make dist")
	return packages[0]
}

func readIfThere(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}
