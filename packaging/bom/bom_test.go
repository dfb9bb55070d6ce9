package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// moduleWith makes a module with one file and a package in a folder of it.
func moduleWith(t *testing.T, name, text string) (root, dir string) {
	t.Helper()
	root = t.TempDir()
	dir = filepath.Join(root, "internal", "copied")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return root, dir
}

func goLicense(t *testing.T) string {
	t.Helper()
	std, err := standardLibrary(".", "go")
	if err != nil {
		t.Fatal(err)
	}
	return std.files["LICENSE"]
}

func TestLicenseOfModuleIsFoundFromPackage(t *testing.T) {
	root, dir := moduleWith(t, "COPYING", goLicense(t))
	m := &module{path: "example.org/a", version: "v1.0.0", files: map[string]string{}}
	if err := m.readLicenseFiles(root, dir); err != nil {
		t.Fatal(err)
	}
	if err := classify([]*module{m}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(m.licenses, " "); got != "BSD-3-Clause" {
		t.Errorf("licences %q, want BSD-3-Clause", got)
	}
	for expression, ok := range map[string]bool{"Apache-2.0 AND BSD-3-Clause": true, "Apache-2.0": false, "Apache-2.0 AND BSD-3-Clause AND MIT": false} {
		if err := checkLicense([]*module{m}, expression); (err == nil) != ok {
			t.Errorf("stated %q: %v", expression, err)
		}
	}
	if text := string(noticesText([]*module{m})); !strings.Contains(text, "example.org/a v1.0.0 (BSD-3-Clause): COPYING\n") || !strings.Contains(text, "The Go Authors") {
		t.Errorf("notices:\n%s", text)
	}
}

func TestUnknownLicenseFails(t *testing.T) {
	for name, text := range map[string]string{"LICENSE": "Ask first.", "README": goLicense(t)} {
		root, dir := moduleWith(t, name, text)
		m := &module{path: "example.org/a", version: "v1.0.0", files: map[string]string{}}
		if err := m.readLicenseFiles(root, dir); err != nil {
			t.Fatal(err)
		}
		if err := classify([]*module{m}); err == nil {
			t.Errorf("a module with only %s %.10q passes as %q", name, text, m.licenses)
		}
	}
}
