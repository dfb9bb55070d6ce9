package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A module is one that is linked into the binary. The standard library is one,
// too: its path is "std".
type module struct {
	path, version string
	sum           string            // h1: hash of go.sum, empty for the standard library
	files         map[string]string // texts of licence files, by path inside the module
	licenses      []string          // SPDX ids, sorted
}

// licenseFile matches the names of files with a licence or a notice. A licence of
// documents (LICENSE.docs) says nothing of the program.
var licenseFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents|copyright|unlicense)([-._].*)?$`)

// listedPackage is what go list -json says of a package.
type listedPackage struct {
	Dir    string
	Module *struct{ Path, Dir string }
}

// linkedModules returns the modules of a binary with their licence files.
func linkedModules(source string, info *buildinfo.BuildInfo) ([]*module, error) {
	packages, err := linkedPackages(source, info)
	if err != nil {
		return nil, err
	}
	std, err := standardLibrary(source, info.GoVersion)
	if err != nil {
		return nil, err
	}
	modules := []*module{std}
	for _, dep := range info.Deps {
		m := &module{path: dep.Path, version: dep.Version, sum: dep.Sum, files: map[string]string{}}
		for _, p := range packages {
			if p.Module != nil && p.Module.Path == dep.Path {
				if err := m.readLicenseFiles(p.Module.Dir, p.Dir); err != nil {
					return nil, err
				}
			}
		}
		if len(m.files) == 0 {
			return nil, fmt.Errorf("module %s %s: no licence file; it must not be distributed", m.path, m.version)
		}
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b *module) int { return strings.Compare(a.path, b.path) })
	return modules, nil
}

// linkedPackages lists the packages of a binary, for its system and build tags.
func linkedPackages(source string, info *buildinfo.BuildInfo) ([]listedPackage, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=Dir,Module", "-tags", setting(info, "-tags"), info.Path)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOOS="+setting(info, "GOOS"), "GOARCH="+setting(info, "GOARCH"), "CGO_ENABLED="+setting(info, "CGO_ENABLED"))
	out, err := output(cmd)
	if err != nil {
		return nil, fmt.Errorf("list the packages of %s: %w", info.Path, err)
	}
	var packages []listedPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list the packages of %s: %w", info.Path, err)
		}
		packages = append(packages, p)
	}
}

// standardLibrary is Go itself, of which parts are in every binary.
func standardLibrary(source, version string) (*module, error) {
	cmd := exec.Command("go", "env", "GOROOT")
	cmd.Dir = source
	out, err := output(cmd)
	if err != nil {
		return nil, fmt.Errorf("find the folder of Go: %w", err)
	}
	root := strings.TrimSpace(string(out))
	m := &module{path: "std", version: version, files: map[string]string{}}
	return m, m.readLicenseFiles(root, root)
}

// readLicenseFiles reads the licence files between a package and the root of its
// module: a copied package has its licence in its own folder.
func (m *module) readLicenseFiles(root, dir string) error {
	for {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("module %s: %w", m.path, err)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || !licenseFile.MatchString(e.Name()) || slices.Contains([]string{".go", ".docs"}, filepath.Ext(e.Name())) {
				continue
			}
			path := filepath.Join(dir, e.Name())
			text, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("module %s: %w", m.path, err)
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return fmt.Errorf("module %s: %w", m.path, err)
			}
			m.files[name] = string(text)
		}
		if dir == root {
			return nil
		}
		if dir = filepath.Dir(dir); !strings.HasPrefix(dir, root) {
			return fmt.Errorf("module %s: package outside %s: %w", m.path, root, fs.ErrInvalid)
		}
	}
}

// noticesText has each text once, with the modules that it belongs to. Texts that
// differ in spaces only are one.
func noticesText(modules []*module) []byte {
	type notice struct{ users, text string }
	notices := map[string]*notice{}
	var order []*notice
	for _, m := range modules {
		for _, name := range slices.Sorted(maps.Keys(m.files)) {
			text := m.files[name]
			key := strings.Join(strings.Fields(text), " ")
			if notices[key] == nil {
				notices[key] = &notice{text: strings.Trim(text, "\n")}
				order = append(order, notices[key])
			}
			notices[key].users += fmt.Sprintf("%s %s (%s): %s\n", m.path, m.version, strings.Join(m.licenses, ", "), name)
		}
	}
	var b bytes.Buffer
	b.WriteString(noticesHead)
	for _, n := range order {
		fmt.Fprintf(&b, "\n%s\n%s%s\n\n%s\n", strings.Repeat("=", 78), n.users, strings.Repeat("-", 78), n.text)
	}
	return b.Bytes()
}

const noticesHead = `The program contains the Go modules below, each under its own licence; std is the
standard library of Go. Their source code is unchanged and can be had with
go mod download MODULE@VERSION.
`

func setting(info *buildinfo.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// output runs a command and returns what it writes; the error has what it says.
func output(cmd *exec.Cmd) ([]byte, error) {
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return out, err
}
