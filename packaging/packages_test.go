// Package packaging tests the packages of bin/dist. make check-packages builds them
// first.
package packaging

import (
	"debug/elf"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// run returns what a command prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestVersionsSort has descriptions of git in the order in which a user must be
// offered them as upgrades.
func TestVersionsSort(t *testing.T) {
	descriptions := []string{
		"9f31c02", "v0.1.0-rc1", "v0.1.0-rc1-4-g1234567", "v0.1.0-rc2", "v0.1.0", "v0.1.0-dirty",
		"v0.1.0-9-g1234567", "v0.1.0-10-gabcdef0", "v0.1.1", "v0.2.0", "v0.10.0", "v1.0.0",
	}
	for i := range descriptions[1:] {
		older := strings.TrimSpace(run(t, "./version", descriptions[i], "236"))
		newer := strings.TrimSpace(run(t, "./version", descriptions[i+1], "236"))
		if err := exec.Command("dpkg", "--compare-versions", older+"-1", "lt", newer+"-1").Run(); err != nil {
			t.Errorf("dpkg: %s is not below %s: %v", older, newer, err)
		}
		if order := run(t, "rpm", "--eval", `%{lua: print(rpm.vercmp("`+older+`", "`+newer+`"))}`); strings.TrimSpace(order) != "-1" {
			t.Errorf("rpm: %s is not below %s: %s", older, newer, order)
		}
	}
	untagged := []string{"9f31c02", "0a1b2c3-dirty"}
	if a, b := run(t, "./version", untagged[0], "9"), run(t, "./version", untagged[1], "10"); exec.Command("dpkg", "--compare-versions", strings.TrimSpace(a), "lt", strings.TrimSpace(b)).Run() != nil {
		t.Errorf("without a tag, %s is not below %s", a, b)
	}
}

// architectures are those of a release, by Go's names, which Debian has, too.
var architectures = map[string]struct {
	rpm     string
	machine elf.Machine
}{
	"amd64": {"x86_64", elf.EM_X86_64},
	"arm64": {"aarch64", elf.EM_AARCH64},
}

// kinds says where a package has the program and the licences of the linked modules.
var kinds = map[string]struct{ program, notices string }{
	"deb":    {"usr/libexec/oci/hooks.d/autofs-restore-hook", "usr/share/doc/autofs-restore-hook/THIRD-PARTY-NOTICES"},
	"rpm":    {"usr/libexec/oci/hooks.d/autofs-restore-hook", "usr/share/licenses/autofs-restore-hook/THIRD-PARTY-NOTICES"},
	"tar.gz": {"autofs-restore-hook", "THIRD-PARTY-NOTICES"},
}

// packageFile returns the one package of a kind for an architecture in bin/dist.
func packageFile(t *testing.T, kind, architecture string) string {
	t.Helper()
	if kind == "rpm" {
		architecture = architectures[architecture].rpm
	}
	found, err := filepath.Glob("../bin/dist/*" + architecture + "." + kind)
	if err != nil || len(found) != 1 {
		t.Fatalf("want one %s for %s in bin/dist, found %q, %v: run make dist", kind, architecture, found, err)
	}
	return found[0]
}

// eachPackage runs a test on the files of each package of some kinds.
func eachPackage(t *testing.T, kinds []string, test func(t *testing.T, kind, architecture, dir string)) {
	unpack := map[string]string{
		"deb":    `dpkg-deb --raw-extract "$0" "$1"`,
		"rpm":    `rpm2cpio "$0" | cpio --extract --make-directories --no-absolute-filenames --quiet --directory="$1"`,
		"tar.gz": `tar --extract --file "$0" --directory "$1" --strip-components=1`,
	}
	for architecture := range architectures {
		for _, kind := range kinds {
			t.Run(architecture+"."+kind, func(t *testing.T) {
				dir := t.TempDir()
				run(t, "sh", "-c", unpack[kind], packageFile(t, kind, architecture), dir)
				test(t, kind, architecture, dir)
			})
		}
	}
}

// TestArchitectures: a package has the program of its architecture, the one that the
// bill of materials is about.
func TestArchitectures(t *testing.T) {
	eachPackage(t, slices.Collect(maps.Keys(kinds)), func(t *testing.T, kind, architecture, dir string) {
		want := architectures[architecture]
		program := filepath.Join(dir, kinds[kind].program)
		f, err := elf.Open(program)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if f.Machine != want.machine {
			t.Errorf("the program is for %v, want %v", f.Machine, want.machine)
		}
		sum, _, _ := strings.Cut(run(t, "sha256sum", program), " ")
		if bom, err := os.ReadFile("../bin/" + architecture + "/autofs-restore-hook.cdx.json"); err != nil || !strings.Contains(string(bom), sum) {
			t.Errorf("the bill of materials is of another program, not of %s: %v", sum, err)
		}
		switch file := packageFile(t, kind, architecture); kind {
		case "deb":
			if got := strings.TrimSpace(run(t, "dpkg-deb", "--field", file, "Architecture")); got != architecture {
				t.Errorf("the package is for %s", got)
			}
		case "rpm":
			if got := run(t, "rpm", "-qp", "--queryformat", "%{ARCH}", file); got != want.rpm {
				t.Errorf("the package is for %s", got)
			}
		}
	})
}

// TestContents looks for each manual page, completion and document of the checkout,
// and for the licences, in the packages that get installed.
func TestContents(t *testing.T) {
	const doc = "/usr/share/doc/autofs-restore-hook/"
	want := map[string]string{ // where a package has it, by file of the checkout
		"../README.md": doc + "README.md", "../SECURITY.md": doc + "SECURITY.md", "../CHANGELOG.md": doc + "CHANGELOG.md",
	}
	add := func(pattern string, destination func(base string) string) {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: found nothing, %v", pattern, err)
		}
		for _, file := range found {
			want[file] = destination(filepath.Base(file))
		}
	}
	add("man/autofs-restore-hook*.[1-8]", func(base string) string { return "/usr/share/man/man" + base[len(base)-1:] + "/" + base + ".gz" })
	add("../docs/*.[mj]*", func(base string) string { return doc + "docs/" + base })
	add("completion/*.bash", func(base string) string {
		return "/usr/share/bash-completion/completions/" + strings.TrimSuffix(base, ".bash")
	})
	add("completion/*.fish", func(base string) string { return "/usr/share/fish/vendor_completions.d/" + base })
	more := map[string][]string{
		"deb": {doc + "copyright", doc + "changelog.gz", doc + "changelog.Debian.gz"},
		"rpm": {"/usr/share/licenses/autofs-restore-hook/LICENSE"},
	}
	eachPackage(t, []string{"deb", "rpm"}, func(t *testing.T, kind, _, dir string) {
		for _, path := range slices.Concat(slices.Collect(maps.Values(want)), more[kind]) {
			if _, err := os.Lstat(filepath.Join(dir, path)); err != nil {
				t.Errorf("%s is missing: %v", path, err)
			}
		}
	})
}

// TestNotices looks for copyright lines of linked modules in the notices.
func TestNotices(t *testing.T) {
	eachPackage(t, slices.Collect(maps.Keys(kinds)), func(t *testing.T, kind, _, dir string) {
		text, err := os.ReadFile(filepath.Join(dir, kinds[kind].notices))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"Copyright (c) 2014 Simon Eskildsen", "Copyright 2009 The Go Authors", "Georg Reinke"} {
			if !strings.Contains(string(text), line) {
				t.Errorf("the notices have no %q", line)
			}
		}
	})
}

// TestSums: dpkg -V can verify each file.
func TestSums(t *testing.T) {
	eachPackage(t, []string{"deb"}, func(t *testing.T, _, _, dir string) {
		sums := run(t, "sh", "-c", `cd "$0" && md5sum --check --strict DEBIAN/md5sums`, dir)
		files := run(t, "find", dir, "-path", dir+"/DEBIAN", "-prune", "-o", "-type", "f", "-print")
		if a, b := strings.Count(sums, ": OK"), strings.Count(files, "\n"); a != b {
			t.Errorf("%d sums for %d files", a, b)
		}
	})
}

// rpmScript installs, upgrades and removes the package in a copy of this system,
// without and with a CRIU.
const rpmScript = `set -eux
work=$1 package=$2 root=$1/root
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mkdir "$root/run/lock"
cp "$package" "$root/run/package.rpm"
rm -f "$root"/usr/sbin/criu "$root"/usr/local/sbin/criu "$root/etc/criu/default.conf"
line='^action-script /usr/libexec/oci/hooks.d/autofs-restore-hook-action-script'
conf=$root/etc/criu/default.conf
rpm() { chroot "$root" rpm "$@"; }

rpm -i --nodeps /run/package.rpm
test ! -e "$conf"
rpm -e autofs-restore-hook

printf '#!/bin/sh\necho Version: 4.1.1\n' >"$root/usr/sbin/criu"
chmod +x "$root/usr/sbin/criu"
rpm -i --nodeps /run/package.rpm
grep "$line" "$conf"
rpm -V --nodeps autofs-restore-hook
rpm -U --force --nodeps /run/package.rpm
grep "$line" "$conf"
chroot "$root" autofs-restore-hook version
rpm -e autofs-restore-hook
test ! -e "$conf"
test ! -e "$root/usr/libexec/oci/hooks.d"
test ! -e "$root/var/lib/autofs-restore-hook"
test ! -e "$root/usr/share/doc/autofs-restore-hook"
`

// TestRPM runs the scripts of the RPM package for this machine. The Debian package has tests in
// test/e2e, with real restores.
func TestRPM(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("REQUIRE") == "" {
		t.Skip("mounts a copy of this system: needs root")
	}
	t.Logf("\n%s", run(t, "unshare", "--mount", "--pid", "--fork", "--propagation", "private",
		"sh", "-c", rpmScript, "sh", t.TempDir(), packageFile(t, "rpm", runtime.GOARCH)))
}
