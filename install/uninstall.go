package install

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
)

// uninstall plans a removal. Its order: the callers of the program, the program, the
// record.
func (p *plan) uninstall(context.Context) error {
	if p.record.Program != "" {
		if err := p.setProgram(p.record.Program); err != nil {
			return err
		}
	}
	o := p.options
	everything := o.All || len(o.Engines) == 0
	for _, e := range []Engine{CRIO, Podman, Containerd, CRIU} {
		if !everything && !slices.Contains(o.Engines, e) {
			continue
		}
		var err error
		switch e {
		case CRIU:
			if err = p.removeForceIrmap(); err == nil {
				err = p.removeActionScript()
			}
		case Containerd:
			err = p.removeFiles(e, []string{BaseSpec})
		default:
			err = p.removeHooks(e)
		}
		if err != nil {
			return err
		}
	}
	if p.record.ScriptLine != nil || p.record.ForceIrmap != nil || len(p.record.Files) > 0 || !everything && len(p.callers()) > 0 {
		return p.updateRecord() // other engines still call the program
	}
	return p.removeProgram()
}

// removeHooks plans the removal of an engine's hooks.d files: the recorded ones, and the
// ones where Install would write them now.
func (p *plan) removeHooks(e Engine) error {
	var names []string
	for _, f := range p.record.Files {
		if f.Engine == e {
			names = append(names, f.Path)
		}
	}
	if files, _, err := p.tree.hooks(e, p.program); err == nil {
		for _, f := range files {
			if p.record.file("", f.Name) == nil {
				names = append(names, f.Name)
			}
		}
	}
	return p.removeFiles(e, names)
}

// removeFiles plans the removal of the files that Install wrote for an engine.
func (p *plan) removeFiles(e Engine, names []string) error {
	for _, name := range names {
		recorded := p.record.file(e, name)
		written := ""
		if recorded != nil {
			written = recorded.Sum
			p.record.Files = slices.DeleteFunc(p.record.Files, func(f recordedFile) bool { return f.Engine == e && f.Path == name })
			if p.record.file("", name) != nil {
				continue // another engine needs it
			}
		}
		if p.change(name) != nil {
			continue
		}
		f, err := p.tree.readText(name)
		if err != nil {
			return err
		}
		if f == nil {
			continue
		}
		if !isHook(name, f.data) && (recorded == nil || written != sum(f.data)) {
			calls := bytes.Contains(f.data, []byte(p.program))
			if recorded != nil || calls {
				p.keep(name, "was changed: remove it by hand")
			}
			if calls {
				p.hookCallers = append(p.hookCallers, p.tree.show(name)+" calls it")
			}
			continue
		}
		if file := p.baseSpecUser(name); file != "" {
			p.keep(name, fmt.Sprintf("%s names it: remove base_runtime_spec there and restart containerd first", p.tree.show(file)))
			p.record.setFile(e, name, written)
			continue
		}
		p.remove(name, f, nil)
	}
	return nil
}

func (p *plan) keep(name, why string) {
	p.kept = append(p.kept, p.tree.show(name)+": "+why)
}

// baseSpecUser returns a configuration file of containerd that names the base
// specification, "" if none does or name is another file.
func (p *plan) baseSpecUser(name string) string {
	if name != BaseSpec {
		return ""
	}
	files := []string{"/etc/containerd/config.toml"}
	for _, dir := range []string{"/etc/containerd", "/etc/containerd/conf.d", "/etc/containerd/certs.d"} {
		for _, n := range p.tree.listDir(dir) {
			if strings.HasSuffix(n, ".toml") {
				files = append(files, dir+"/"+n)
			}
		}
	}
	for _, file := range files {
		for line := range strings.Lines(p.tree.text(file)) {
			if strings.Contains(line, BaseSpec) && !strings.HasPrefix(strings.TrimSpace(line), "#") {
				return file
			}
		}
	}
	return ""
}

// removeProgram plans the removal of the program, if Install wrote it and nothing calls
// it any more, and of the record.
func (p *plan) removeProgram() error {
	f, err := p.tree.read(p.program, maxProgram)
	if err != nil {
		return err
	}
	if f != nil {
		callers := p.callers()
		for _, c := range callers {
			p.keep(p.program, c)
		}
		switch {
		case len(callers) > 0:
			return p.updateRecord()
		case !p.record.ProgramWritten, isProgram(f.data) && !p.record.owns(f.data):
			p.note("%s is kept: install did not write it", p.tree.show(p.program))
		case !isProgram(f.data):
			p.keep(p.program, "is another program now: remove it by hand")
		default:
			p.remove(p.program, f, p.skipWhileCRIURuns(p.program))
		}
	}
	r, err := p.tree.readText(RecordFile)
	if err != nil {
		return err
	}
	if r != nil {
		p.remove(RecordFile, r, p.anySkipped)
	}
	p.oldDirs = p.record.Directories
	p.uninstalled = len(p.kept) == 0 && (p.options.All || len(p.options.Engines) == 0)
	return nil
}

// anySkipped reports whether a file remains, for which the next removal needs the record.
func (p *plan) anySkipped() bool {
	return slices.ContainsFunc(p.changes, func(c *change) bool { return c.skipped })
}

// updateRecord plans the record of what is still installed.
func (p *plan) updateRecord() error {
	before, err := p.tree.readText(RecordFile)
	if err != nil || before == nil {
		return err
	}
	p.oldDirs = p.emptiedDirs()
	p.record.Directories = slices.DeleteFunc(p.record.Directories, func(dir string) bool { return slices.Contains(p.oldDirs, dir) })
	data, err := p.record.encode()
	if err == nil && !bytes.Equal(before.data, data) {
		p.changes = append(p.changes, &change{path: RecordFile, before: before, after: data})
	}
	return err
}

// emptiedDirs lists the recorded directories, parents first, that are empty after the
// planned changes.
func (p *plan) emptiedDirs() []string {
	var gone, list []string
	for _, c := range p.changes {
		if c.remove {
			gone = append(gone, c.path)
		}
	}
	for _, dir := range slices.Backward(p.record.Directories) {
		remains := func(name string) bool { return !slices.Contains(gone, dir+"/"+name) }
		if !slices.ContainsFunc(p.tree.listDir(dir), remains) {
			gone = append(gone, dir)
			list = append([]string{dir}, list...)
		}
	}
	return list
}

// runDir is where the program keeps its state of running containers.
const runDir = journal.Directory

// removeRunFiles removes the reports and all other state in runDir but that of
// unfinished repairs.
func (t *tree) removeRunFiles() {
	dir, err := t.openDir(runDir)
	if err != nil {
		return
	}
	defer dir.Close()
	for _, sub := range t.listDir(runDir) {
		for _, name := range t.listDir(runDir + "/" + sub) {
			if !journal.Pending(sub, name) {
				_ = dir.Remove(sub + "/" + name)
			}
		}
		_ = dir.Remove(sub) // a file, or a directory if it is empty
	}
	t.removeDir(runDir)
}
