package install

import (
	"context"
	"encoding/json"
	"path"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
)

// Survey describes the engines, CRIU's configuration and the installation on a machine.
type Survey struct {
	// Programs are CRIU and the engines, CRIU first.
	Programs []Program
	// Scripts are the action scripts of CRIU's configuration files.
	Scripts []Script
	// ForceIrmap are the configuration files that set that option of CRIU.
	ForceIrmap []string
	// Unreadable are the errors of CRIU's configuration files.
	Unreadable []string
	// Hooks are the hook files that call the program, or have its name.
	Hooks []Hook
	// Targets are the files that scripts and hooks call.
	Targets []Target
	// Installed is whether there is a record of an installation.
	Installed bool
}

// Program is CRIU, a runtime or an engine.
type Program struct {
	Name, Path string
	Version    Version
	Problem    string // why the version is unknown
	// RestoreOff is the setting that keeps a container engine from restoring containers
	// of pods; "" for none, and where that is unknown.
	RestoreOff string
}

// Script is one action-script line.
type Script struct {
	File, Program string
}

// Hook is a hooks.d file, or containerd's base specification.
type Hook struct {
	File, Program string
	Problem       string // why it is not a valid hook file
}

// Target is a file that CRIU or an engine calls.
type Target struct {
	Path    string
	Problem string // why it cannot be called
	// IsProgram is whether it is this program; Version is then what its version command
	// prints.
	IsProgram bool
	Version   string
	// Calls is the program that the file calls if it is the action script. Problem and
	// Version are then those of that program.
	Calls string
}

// programs are the names of CRIU and of what runs it. All of them have --version.
var programs = []string{"criu", "runc", "crun", "podman", "crio", "containerd", "lxc-checkpoint", "incus"}

// criuFiles are CRIU's configuration files: every CRIU reads the first two, a CRIU that
// runc or crun starts the others.
var criuFiles = []string{CRIUFile, "/root/.criu/default.conf", "/etc/criu/runc.conf", "/etc/criu/crun.conf"}

// NewSurvey surveys the machine below a root directory.
func NewSurvey(ctx context.Context, root string) (*Survey, error) {
	t, err := openTree(root)
	if err != nil {
		return nil, err
	}
	defer t.close()
	s := &Survey{}
	for _, name := range programs {
		for _, found := range t.lookPath(name) {
			p := Program{Name: name, Path: found}
			if p.Version, err = t.programVersion(ctx, found); err != nil {
				p.Problem = err.Error()
			}
			p.RestoreOff = t.restoreOff(ctx, p)
			s.Programs = append(s.Programs, p)
		}
	}
	for _, name := range criuFiles {
		if err := s.addCRIUFile(t, name); err != nil {
			s.Unreadable = append(s.Unreadable, err.Error())
		}
	}
	s.addEngineHooks(t)
	s.addBaseSpec(t)
	for _, c := range s.Scripts {
		s.addTarget(ctx, t, c.Program)
	}
	for _, h := range s.Hooks {
		s.addTarget(ctx, t, h.Program)
	}
	r, err := readRecord(t)
	if err == nil && r.Program != "" {
		s.Installed = true
		s.addTarget(ctx, t, r.Program)
	}
	return s, nil
}

// addCRIUFile reads a configuration file of CRIU.
func (s *Survey) addCRIUFile(t *tree, name string) error {
	target, err := t.follow(name)
	if err != nil {
		return err
	}
	f, err := t.readText(target)
	if err != nil || f == nil {
		return err
	}
	for _, program := range ActionScripts(string(f.data)) {
		s.Scripts = append(s.Scripts, Script{File: name, Program: program})
	}
	if hasForceIrmap(string(f.data)) {
		s.ForceIrmap = append(s.ForceIrmap, name)
	}
	return nil
}

// addEngineHooks reads the hooks.d files of podman and CRI-O.
func (s *Survey) addEngineHooks(t *tree) {
	var dirs []string
	for _, e := range []Engine{Podman, CRIO} {
		if dir, _, err := t.hooksDirectory(e); err == nil {
			dirs = appendNew(dirs, []string{dir})
		}
	}
	for _, dir := range dirs {
		for _, name := range t.listDir(dir) {
			if !strings.HasSuffix(name, ".json") {
				continue
			}
			h := Hook{File: dir + "/" + name}
			program, err := hookPath([]byte(t.text(h.File)))
			related := strings.HasPrefix(name, programName) || path.Base(program) == programName
			switch {
			case err != nil:
				h.Problem = err.Error() // one file that is not JSON stops every container
			case related && program == "":
				h.Problem = "it names no program"
			case related:
				h.Program = program
			default:
				continue
			}
			s.Hooks = append(s.Hooks, h)
		}
	}
}

// addBaseSpec reads containerd's base specification.
func (s *Survey) addBaseSpec(t *tree) {
	text := t.text(BaseSpec)
	if text == "" {
		return
	}
	var spec struct {
		Hooks map[string][]struct {
			Path string `json:"path"`
		} `json:"hooks"`
	}
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		s.Hooks = append(s.Hooks, Hook{File: BaseSpec, Problem: err.Error()})
		return
	}
	for _, h := range spec.Hooks["createRuntime"] {
		if path.Base(h.Path) == programName {
			s.Hooks = append(s.Hooks, Hook{File: BaseSpec, Program: h.Path})
			return
		}
	}
}

// Target returns the description of a file that CRIU or an engine calls.
func (s *Survey) Target(path string) Target {
	if t := s.find(path); t != nil {
		return *t
	}
	return Target{Path: path, Problem: "it is not an absolute path"}
}

func (s *Survey) find(path string) *Target {
	for i := range s.Targets {
		if t := &s.Targets[i]; t.Path == path {
			return t
		}
	}
	return nil
}

// addTarget examines a file that CRIU or an engine calls.
func (s *Survey) addTarget(ctx context.Context, t *tree, name string) {
	if !path.IsAbs(name) || s.find(name) != nil {
		return
	}
	target := Target{Path: name}
	resolved, err := t.follow(name)
	var f *file
	if err == nil {
		f, err = t.read(resolved, maxProgram)
	}
	callee, isScript := "", false
	if f != nil {
		callee, isScript = manifests.CalledBy(name, string(f.data))
	}
	switch {
	case err != nil:
		target.Problem = err.Error()
	case f == nil:
		target.Problem = "it does not exist"
	case f.info.Mode()&0o100 == 0:
		target.Problem = "it is not executable"
	case isScript && t.executable(shell) == nil:
		target.Problem = "it needs " + shell + ", which is missing"
	case isScript:
		target.Calls = callee
		s.addTarget(ctx, t, callee)
		c := s.Target(callee)
		target.IsProgram, target.Version, target.Problem = c.IsProgram, c.Version, c.Problem
	case isProgram(f.data):
		target.IsProgram = true
		var v struct {
			Version string `json:"version"`
		}
		out, err := t.run(ctx, nil, name, "version", "--json")
		if err == nil {
			err = json.Unmarshal(out, &v)
		}
		if target.Version = v.Version; err != nil {
			target.Problem = err.Error()
		}
	}
	s.Targets = append(s.Targets, target)
}
