package install

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// uninstall plans a removal. Its order: the callers of the program, the program,
// the record.
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
	if p.record.Line != nil || p.record.ForceIrmap != nil || len(p.record.Files) > 0 || !everything && len(p.callers()) > 0 {
		return p.writeRest() // other engines still call the program
	}
	return p.removeProgram()
}

// removeHooks plans the removal of an engine's hooks.d files: those that were
// written, and those that lie where they would be written now.
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

// removeFiles plans the removal of files that are ours.
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
		if slices.ContainsFunc(p.changes, func(c *change) bool { return c.path == name }) {
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
				p.calling = append(p.calling, p.tree.show(name)+" calls it")
			}
			continue
		}
		if file := p.namesBaseSpec(name); file != "" {
			p.keep(name, fmt.Sprintf("%s names it: take base_runtime_spec out there and restart containerd first", p.tree.show(file)))
			p.record.set(e, name, written)
			continue
		}
		p.changes = append(p.changes, &change{path: name, before: f, remove: true})
	}
	return nil
}

func (p *plan) keep(name, why string) {
	p.kept = append(p.kept, p.tree.show(name)+": "+why)
}

// namesBaseSpec finds a configuration of containerd that needs the file.
func (p *plan) namesBaseSpec(name string) string {
	if name != BaseSpec {
		return ""
	}
	files := []string{"/etc/containerd/config.toml"}
	for _, dir := range []string{"/etc/containerd", "/etc/containerd/conf.d", "/etc/containerd/certs.d"} {
		for _, n := range p.tree.names(dir) {
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

// removeProgram plans the removal of the program, if it was put there and
// nothing calls it any more, and of the record.
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
			return p.writeRest()
		case !p.record.Wrote, isProgram(f.data) && !p.record.owns(f.data):
			p.note("%s is kept: it was not put there by install", p.tree.show(p.program))
		case !isProgram(f.data):
			p.keep(p.program, "is another program now: remove it by hand")
		default:
			p.changes = append(p.changes, &change{path: p.program, before: f, remove: true, unless: p.unlessCRIU(p.program)})
		}
	}
	r, err := p.tree.readText(RecordFile)
	if err != nil {
		return err
	}
	if r != nil {
		p.changes = append(p.changes, &change{path: RecordFile, before: r, remove: true, unless: p.someSkipped})
	}
	p.obsolete = p.record.Folders
	p.clean = len(p.kept) == 0 && (p.options.All || len(p.options.Engines) == 0)
	return nil
}

// someSkipped reports whether a file was left that another removal has to find.
func (p *plan) someSkipped() bool {
	return slices.ContainsFunc(p.changes, func(c *change) bool { return c.skipped })
}

// writeRest plans the record of what is still installed.
func (p *plan) writeRest() error {
	before, err := p.tree.readText(RecordFile)
	if err != nil || before == nil {
		return err
	}
	p.obsolete = p.emptied()
	p.record.Folders = slices.DeleteFunc(p.record.Folders, func(dir string) bool { return slices.Contains(p.obsolete, dir) })
	data, err := p.record.encode()
	if err == nil && !bytes.Equal(before.data, data) {
		p.changes = append(p.changes, &change{path: RecordFile, before: before, after: data})
	}
	return err
}

// emptied lists the folders of the record, the upper first, that will be empty
// after the planned changes.
func (p *plan) emptied() []string {
	var gone, list []string
	for _, c := range p.changes {
		if c.remove {
			gone = append(gone, c.path)
		}
	}
	for i := len(p.record.Folders) - 1; i >= 0; i-- {
		dir := p.record.Folders[i]
		if !slices.ContainsFunc(p.tree.names(dir), func(name string) bool { return !slices.Contains(gone, dir+"/"+name) }) {
			gone = append(gone, dir)
			list = append([]string{dir}, list...)
		}
	}
	return list
}

// runFiles is where the program keeps what it knows of running containers.
const runFiles = "/run/" + programName

// underWay reports whether a file is the note of a repair that is not finished:
// without it what covered a mount could not be brought back, nor could the processes
// in a parking mount be released.
func underWay(dir, name string) bool {
	switch dir {
	case "covers", "locks":
		return true
	case "containers": // "PID-START.json" says what is repaired, all others what is under way
		identity, ok := strings.CutSuffix(name, ".json")
		return !ok || strings.Contains(identity, ".")
	}
	return false
}

// removeRunFiles removes the reports and whatever else is kept until the next
// boot.
func (t *tree) removeRunFiles() {
	for _, dir := range append(t.names(runFiles), ".") {
		folder, err := t.open(runFiles+"/"+dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if err != nil {
			continue
		}
		names, _ := folder.Readdirnames(-1)
		for _, name := range names {
			if !underWay(dir, name) {
				_ = unix.Unlinkat(int(folder.Fd()), name, 0)
			}
		}
		folder.Close()
		if dir != "." {
			t.removeFolder(runFiles + "/" + dir)
		}
	}
	t.removeFolder(runFiles)
}
