package install

import (
	"context"
	"encoding/json"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
)

// Survey is what can be seen of engines, of CRIU's configuration and of an
// installation.
type Survey struct {
	// Programs are CRIU and the engines that were found, CRIU first.
	Programs []Program
	// Scripts are the action scripts of CRIU's configuration files.
	Scripts []Script
	// ForceIrmap are the configuration files that set that option of CRIU.
	ForceIrmap []string
	// Unreadable are configuration files of CRIU that are not texts.
	Unreadable []string
	// Hooks are the hook files that call the program, or lie in its name.
	Hooks []Hook
	// Targets are the files that scripts and hooks call.
	Targets []Target
	// Installed is whether there is a record of an installation.
	Installed bool
}

// Program is a program of the machine.
type Program struct {
	Name, Path string
	Version    Version
	Problem    string // why the version is not known
}

// Script is one action-script line.
type Script struct {
	File, Program string
}

// Hook is a hooks.d file, or containerd's base specification.
type Hook struct {
	File, Program string
	Problem       string // why it is no hook file
}

// Target is a file that CRIU or an engine calls.
type Target struct {
	Path    string
	Problem string // why it cannot be called
	// Ours is whether it is this program, and Version then what it says of itself.
	Ours    bool
	Version string
	// Calls is the program that this calls, if it is the action script. The
	// problem of that one is its own too, and so is its version.
	Calls string
}

// programs are what is looked for, and how each is asked for its version.
var programs = []string{"criu", "runc", "crun", "podman", "crio", "containerd", "lxc-checkpoint", "incus"}

// Configuration files of CRIU: the first two are read by every CRIU, the others
// by runc and crun.
var criuFiles = []string{CRIUFile, "/root/.criu/default.conf", "/etc/criu/runc.conf", "/etc/criu/crun.conf"}

// Look surveys a root folder.
func Look(ctx context.Context, root string) (*Survey, error) {
	t, err := openTree(root)
	if err != nil {
		return nil, err
	}
	defer t.close()
	s := &Survey{}
	for _, name := range programs {
		for _, found := range t.find(name) {
			p := Program{Name: name, Path: found}
			out, err := t.run(ctx, found, "--version")
			v, ok := ParseVersion(string(out))
			switch {
			case err != nil:
				p.Problem = err.Error()
			case !ok:
				p.Problem = "its --version says no number"
			default:
				p.Version = v
			}
			s.Programs = append(s.Programs, p)
		}
	}
	for _, name := range criuFiles {
		real, err := t.follow(name)
		if err == nil {
			var f *file
			if f, err = t.readText(real); f != nil {
				for _, program := range ActionScripts(string(f.data)) {
					s.Scripts = append(s.Scripts, Script{File: name, Program: program})
				}
				if HasOption(string(f.data), ForceIrmap) {
					s.ForceIrmap = append(s.ForceIrmap, name)
				}
			}
		}
		if err != nil {
			s.Unreadable = append(s.Unreadable, err.Error())
		}
	}
	s.lookAtHooks(t)
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

// lookAtHooks reads the hook files of podman, CRI-O and containerd.
func (s *Survey) lookAtHooks(t *tree) {
	seen := map[string]bool{}
	add := func(name, program, problem string) {
		if !seen[name] {
			seen[name] = true
			s.Hooks = append(s.Hooks, Hook{File: name, Program: program, Problem: problem})
		}
	}
	for _, e := range []Engine{Podman, CRIO} {
		dir, _, err := t.hooksDirectory(e)
		if err != nil {
			continue
		}
		for _, name := range t.names(dir) {
			if !strings.HasSuffix(name, ".json") {
				continue
			}
			name = dir + "/" + name
			var h struct {
				Hook struct {
					Path string `json:"path"`
				} `json:"hook"`
			}
			err := json.Unmarshal([]byte(t.text(name)), &h)
			ours := strings.HasPrefix(path.Base(name), programName) || path.Base(h.Hook.Path) == programName
			switch {
			case err != nil:
				add(name, "", err.Error()) // one file that is not JSON stops every container
			case ours && h.Hook.Path == "":
				add(name, "", "it names no program")
			case ours:
				add(name, h.Hook.Path, "")
			}
		}
	}
	if text := t.text(BaseSpec); text != "" {
		var spec struct {
			Hooks map[string][]struct {
				Path string `json:"path"`
			} `json:"hooks"`
		}
		if err := json.Unmarshal([]byte(text), &spec); err != nil {
			add(BaseSpec, "", err.Error())
		}
		for _, h := range spec.Hooks["createRuntime"] {
			if path.Base(h.Path) == programName {
				add(BaseSpec, h.Path, "")
			}
		}
	}
}

// Target is what is known of a file that is called.
func (s *Survey) Target(path string) Target {
	if t := s.find(path); t != nil {
		return *t
	}
	return Target{Path: path, Problem: "it is no absolute path"}
}

func (s *Survey) find(path string) *Target {
	for i := range s.Targets {
		if t := &s.Targets[i]; t.Path == path {
			return t
		}
	}
	return nil
}

// addTarget looks at a file that is called.
func (s *Survey) addTarget(ctx context.Context, t *tree, name string) {
	if !path.IsAbs(name) || s.find(name) != nil {
		return
	}
	target := Target{Path: name}
	real, err := t.follow(name)
	var f *file
	if err == nil {
		f, err = t.read(real, maxProgram)
	}
	called, isScript, hasShell := "", false, false
	if f != nil {
		if called, isScript = manifests.CalledBy(name, string(f.data)); isScript {
			_, hasShell = t.executable(shell)
		}
	}
	switch {
	case err != nil:
		target.Problem = err.Error()
	case f == nil:
		target.Problem = "it does not exist"
	case f.info.Mode&unix.S_IXUSR == 0:
		target.Problem = "it is not executable"
	case isScript && !hasShell:
		target.Problem = "it needs " + shell + ", which is missing"
	case isScript:
		target.Calls = called
		s.addTarget(ctx, t, called)
		c := s.Target(called)
		target.Ours, target.Version, target.Problem = c.Ours, c.Version, c.Problem
	case isProgram(f.data):
		target.Ours = true
		var v struct {
			Version string `json:"version"`
		}
		out, err := t.run(ctx, name, "version", "--json")
		if err == nil {
			err = json.Unmarshal(out, &v)
		}
		if target.Version = v.Version; err != nil {
			target.Problem = err.Error()
		}
	}
	s.Targets = append(s.Targets, target)
}
