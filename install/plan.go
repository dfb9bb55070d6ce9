package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
)

// plan collects the changes of a run. Planning does not change any file.
type plan struct {
	options Options
	tree    *tree
	program string         // path of the program in the tree
	script  manifests.File // the action script next to it, with its path
	record  record

	changes     []*change // in the order in which they are made
	newDirs     []string  // to create before them, parents first
	oldDirs     []string  // to remove after them if they are empty, parents first
	notes       []string
	kept        []string
	hookCallers []string // hook files that are kept and call the program
	uninstalled bool     // nothing of the installation remains
	check       func() error
	criuFile    string // CRIU's configuration, after symbolic links
	callee      string // what its action-script line calls
}

func (p *plan) note(format string, args ...any) {
	p.notes = append(p.notes, fmt.Sprintf(format, args...))
}

// change returns the planned change of a file, nil if there is none.
func (p *plan) change(name string) *change {
	for _, c := range p.changes {
		if c.path == name {
			return c
		}
	}
	return nil
}

// add plans a change and the directories that it needs.
func (p *plan) add(c *change) error {
	missing, err := p.tree.missingDirs(c.path)
	if err != nil {
		return err
	}
	p.newDirs = appendNew(p.newDirs, missing)
	p.changes = append(p.changes, c)
	return nil
}

// remove plans the removal of a file, unless skip prevents it.
func (p *plan) remove(name string, f *file, skip func() bool) {
	p.changes = append(p.changes, &change{path: name, before: f, remove: true, skip: skip})
}

// appendNew appends the strings that a list does not have.
func appendNew(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// install plans an installation. Its order: the record, the program, the callers of the
// program.
func (p *plan) install(ctx context.Context) error {
	if p.record.Program != "" && p.record.Program != p.program {
		return fmt.Errorf("already installed as %s: uninstall it first", p.tree.show(p.record.Program))
	}
	engines, err := p.selectEngines(ctx)
	if err != nil {
		return err
	}
	p.record.Program = p.program
	if err := p.writeProgram(); err != nil {
		return err
	}
	for _, e := range engines {
		switch e {
		case CRIU:
			err = p.writeActionScript()
			p.check = func() error { return p.checkCallable(ctx) }
		case Containerd:
			var data []byte
			if data, err = p.tree.baseSpec(ctx, p.program); err == nil {
				err = p.writeFile(e, BaseSpec, data)
				p.notes = append(p.notes, p.tree.containerdNote(ctx))
			}
		default:
			err = p.writeHooks(e)
		}
		if err != nil {
			return err
		}
	}
	if p.options.ForceIrmap {
		if !slices.Contains(engines, CRIU) {
			return fmt.Errorf("%w: %s is an option of CRIU, which is not among the engines: add criu to --engine", ErrNothingInstalled, ForceIrmap)
		}
		if err := p.writeForceIrmap(); err != nil {
			return err
		}
	}
	return p.writeRecord()
}

// selectEngines returns the engines to install for, in the order of their changes.
func (p *plan) selectEngines(ctx context.Context) ([]Engine, error) {
	o := p.options
	selected := slices.Clone(o.Engines)
	if o.All {
		selected = append(selected, p.tree.engines()...)
	}
	named := slices.Contains(o.Engines, CRIU)
	if named || o.All || len(o.Engines) == 0 {
		err := p.tree.checkCRIU(ctx)
		var old *OldCRIUError
		switch {
		case err == nil:
			selected = append(selected, CRIU)
		case errors.Is(err, ErrNoCRIU) && named:
			p.note("%v: %s is written nevertheless, as requested. A CRIU before %s would abort every checkpoint with it", err, CRIUFile, ScriptVersion)
		case errors.Is(err, ErrNoCRIU):
			p.note("%v: nothing is written for it; run install again when it is there", err)
		case errors.As(err, &old) && !named && o.All && len(selected) > 0:
			p.note("criu: %v", err)
		default:
			return nil, err
		}
	}
	if len(selected) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNothingInstalled, strings.Join(append(p.notes, "no engine was named"), "; "))
	}
	if len(o.Engines) == 0 && !o.All {
		var names []string
		for _, e := range p.tree.engines() {
			names = append(names, string(e))
		}
		if len(names) > 0 {
			p.note("%s: this covers what they restore with CRIU, too", strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(engines), func(e Engine) bool { return !slices.Contains(selected, e) }), nil
}

// writeProgram plans the copy of the program.
func (p *plan) writeProgram() error {
	name := p.options.Program
	if name == "" {
		name = "/proc/self/exe"
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read the program to install: %w", err)
	}
	before, err := p.tree.read(p.program, maxProgram)
	if err != nil {
		return err
	}
	same := before != nil && bytes.Equal(before.data, data)
	switch {
	case before == nil:
		p.record.ProgramWritten = true
	case !isProgram(before.data):
		return fmt.Errorf("%s: another program is there, which is kept; nothing was written", p.tree.show(p.program))
	case !p.record.owns(before.data) && !same:
		return fmt.Errorf("%s: %w", p.tree.show(p.program), errForeign)
	default:
		p.record.ProgramWritten = p.record.owns(before.data)
	}
	p.record.ProgramSum = ""
	if p.record.ProgramWritten {
		p.record.ProgramSum = sum(data)
	}
	if same && before.info.Mode()&0o111 != 0 {
		return nil
	}
	return p.add(&change{path: p.program, before: before, after: data, mode: 0o755})
}

// isProgram recognises a version of this program by what Go's linker writes into
// it (runtime/debug.BuildInfo).
func isProgram(data []byte) bool {
	return bytes.Contains(data, []byte("path\tgithub.com/autofs-restore-hook/autofs-restore-hook/cmd/"+programName+"\n"))
}

// writeHooks plans the hooks.d files of an engine.
func (p *plan) writeHooks(e Engine) error {
	if !slices.Contains(p.tree.engines(), e) {
		p.note("%s: not found in %s; its hooks are written nevertheless, as requested", e, p.tree.name)
	}
	files, note, err := p.tree.hooks(e, p.program)
	if err != nil {
		return err
	}
	if note != "" {
		p.notes = append(p.notes, note)
	}
	for _, f := range files {
		if err := p.writeFile(e, f.Name, []byte(f.Data)); err != nil {
			return err
		}
	}
	p.note("%s: a container gets its hooks when it is created: existing containers have none, and new ones need the program as long as they exist", e)
	return nil
}

// writeFile plans a file for an engine. It keeps a file that was edited.
func (p *plan) writeFile(e Engine, name string, data []byte) error {
	if p.change(name) != nil {
		p.record.setFile(e, name, sum(data)) // podman and CRI-O read the same directory
		return nil
	}
	before, err := p.tree.readText(name)
	if err != nil {
		return err
	}
	same := before != nil && bytes.Equal(before.data, data)
	if before != nil && !same {
		r := p.record.file("", name)
		if !isHook(name, before.data) && (r == nil || r.Sum != sum(before.data)) {
			p.note("%s: was changed, and is kept; to replace it, remove it and run install again", p.tree.show(name))
			return nil
		}
	}
	p.record.setFile(e, name, sum(data))
	if same {
		return nil
	}
	return p.add(&change{path: name, before: before, after: data, mode: 0o644})
}

// writeRecord plans the record, before everything else.
func (p *plan) writeRecord() error {
	before, err := p.tree.readText(RecordFile)
	if err != nil {
		return err
	}
	if before == nil {
		missing, err := p.tree.missingDirs(RecordFile)
		if err != nil {
			return err
		}
		p.newDirs = append(p.newDirs, missing...)
	}
	p.record.Directories = appendNew(p.record.Directories, p.newDirs)
	data, err := p.record.encode()
	if err != nil || before != nil && bytes.Equal(before.data, data) {
		return err
	}
	p.changes = append([]*change{{path: RecordFile, before: before, after: data, mode: 0o600}}, p.changes...)
	return nil
}

// apply carries out the plan.
func (p *plan) apply() error {
	x := &transaction{tree: p.tree, changes: p.changes, check: p.check, checkBefore: p.criuFile}
	if err := x.apply(p.newDirs); err != nil {
		if errors.Is(err, unix.EROFS) {
			err = fmt.Errorf("%w; --prefix puts the program elsewhere, hooks_dir of the engine its hooks", err)
		}
		return err
	}
	for _, name := range slices.Backward(p.oldDirs) {
		p.tree.removeDir(name)
	}
	if p.uninstalled {
		p.tree.removeRunFiles()
	}
	return nil
}

func (p *plan) result() *Result {
	r := &Result{Notes: p.notes, Kept: p.kept}
	for _, c := range p.changes {
		if !c.skipped {
			r.Changes = append(r.Changes, Change{Path: p.tree.show(c.path), Removed: c.remove, Diff: c.diff(p.tree)})
		}
	}
	return r
}
