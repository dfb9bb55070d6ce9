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

// plan is what is going to be changed. It is drawn first, without changing
// anything.
type plan struct {
	options Options
	tree    *tree
	program string         // path of the program in the tree
	script  manifests.File // and of the action script beside it
	record  record

	changes  []*change // in the order in which they are made
	folders  []string  // to be made before
	obsolete []string  // folders to be removed after, if they are empty
	notes    []string
	kept     []string
	calling  []string // of what is kept, who calls the program
	clean    bool     // nothing is left of an installation
	check    func() error
	line     string // the file with CRIU's line
	called   string // what that line calls
}

func (p *plan) note(format string, args ...any) {
	p.notes = append(p.notes, fmt.Sprintf(format, args...))
}

// install plans an installation. Its order: the record, the program, those who
// call it.
func (p *plan) install(ctx context.Context) error {
	if p.record.Program != "" && p.record.Program != p.program {
		return fmt.Errorf("installed as %s already: uninstall it first", p.tree.show(p.record.Program))
	}
	engines, err := p.choose(ctx)
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
			p.check = func() error { return p.checkCalled(ctx) }
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
			return fmt.Errorf("%w: %s is an option of CRIU, and nothing is to be installed for that: add criu to --engine", ErrNothing, ForceIrmap)
		}
		if err := p.writeForceIrmap(); err != nil {
			return err
		}
	}
	return p.writeRecord()
}

// choose decides for which engines to install, in the order of their changes.
func (p *plan) choose(ctx context.Context) ([]Engine, error) {
	o := p.options
	wanted := slices.Clone(o.Engines)
	if o.All {
		wanted = append(wanted, p.tree.found()...)
	}
	asked := slices.Contains(o.Engines, CRIU)
	if asked || o.All || len(o.Engines) == 0 {
		err := p.tree.checkCRIU(ctx)
		var old *OldCRIUError
		switch {
		case err == nil:
			wanted = append(wanted, CRIU)
		case errors.Is(err, ErrNoCRIU) && asked:
			p.note("%v: %s is written all the same, as it was asked for. A CRIU before %s would abort every checkpoint with it", err, CRIUFile, ScriptVersion)
		case errors.Is(err, ErrNoCRIU):
			p.note("%v: nothing is written for it; install it and call this again", err)
		case errors.As(err, &old) && !asked && o.All && len(wanted) > 0:
			p.note("criu: %v", err)
		default:
			return nil, err
		}
	}
	if len(wanted) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNothing, strings.Join(append(p.notes, "no engine was named"), "; "))
	}
	if len(o.Engines) == 0 && !o.All {
		if found := p.tree.found(); len(found) > 0 {
			var names []string
			for _, e := range found {
				names = append(names, string(e))
			}
			p.note("%s: what they restore with CRIU is served by this too", strings.Join(names, ", "))
		}
	}
	var list []Engine
	for _, e := range engines {
		if slices.Contains(wanted, e) {
			list = append(list, e)
		}
	}
	return list, nil
}

// writeProgram plans the copy of the program.
func (p *plan) writeProgram() error {
	name := p.options.Program
	if name == "" {
		name = "/proc/self/exe"
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("program to be installed: %w", err)
	}
	before, err := p.tree.read(p.program, maxProgram)
	if err != nil {
		return err
	}
	same := before != nil && bytes.Equal(before.data, data)
	switch {
	case before == nil:
		p.record.Wrote = true
	case !isProgram(before.data):
		return fmt.Errorf("%s: another program is there, which is kept; nothing was written", p.tree.show(p.program))
	case !p.record.owns(before.data) && !same:
		return fmt.Errorf("%s: %w", p.tree.show(p.program), errForeign)
	default:
		p.record.Wrote = p.record.owns(before.data)
	}
	p.record.Sum = ""
	if p.record.Wrote {
		p.record.Sum = sum(data)
	}
	if same && before.info.Mode&0o111 != 0 {
		return nil
	}
	return p.write(p.program, before, data, 0o755)
}

// isProgram recognises a version of this program by what Go's linker writes into
// it (runtime/debug.BuildInfo).
func isProgram(data []byte) bool {
	return bytes.Contains(data, []byte("path\tgithub.com/autofs-restore-hook/autofs-restore-hook/cmd/"+programName+"\n"))
}

// writeHooks plans the hooks.d files of an engine.
func (p *plan) writeHooks(e Engine) error {
	if !slices.Contains(p.tree.found(), e) {
		p.note("%s: not found in %s; its hooks are written all the same, as they were asked for", e, p.tree.name)
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
	p.note("%s: containers have the hooks that they were created with: those of now have none, and new ones need the program as long as they exist", e)
	return nil
}

// writeFile plans a file that is ours. One that was changed is kept.
func (p *plan) writeFile(e Engine, name string, data []byte) error {
	for _, c := range p.changes {
		if c.path == name {
			p.record.set(e, name, sum(data)) // podman and CRI-O read the same folder
			return nil
		}
	}
	before, err := p.tree.readText(name)
	if err != nil {
		return err
	}
	if before != nil && !bytes.Equal(before.data, data) {
		r := p.record.file("", name)
		if !isHook(name, before.data) && (r == nil || r.Sum != sum(before.data)) {
			p.note("%s: was changed, and is kept as it is; remove it and call this again for a new one", p.tree.show(name))
			return nil
		}
	}
	p.record.set(e, name, sum(data))
	if before != nil && bytes.Equal(before.data, data) {
		return nil
	}
	return p.write(name, before, data, 0o644)
}

// write plans a file, with the folders that it needs.
func (p *plan) write(name string, before *file, data []byte, mode uint32) error {
	missing, err := p.tree.missing(name)
	if err != nil {
		return err
	}
	for _, dir := range missing {
		if !slices.Contains(p.folders, dir) {
			p.folders = append(p.folders, dir)
		}
	}
	p.changes = append(p.changes, &change{path: name, before: before, after: data, mode: mode})
	return nil
}

// writeRecord plans the record, before everything else.
func (p *plan) writeRecord() error {
	before, err := p.tree.readText(RecordFile)
	if err != nil {
		return err
	}
	if before == nil {
		missing, err := p.tree.missing(RecordFile)
		if err != nil {
			return err
		}
		p.folders = append(p.folders, missing...)
	}
	for _, dir := range p.folders {
		if !slices.Contains(p.record.Folders, dir) {
			p.record.Folders = append(p.record.Folders, dir)
		}
	}
	data, err := p.record.encode()
	if err != nil || before != nil && bytes.Equal(before.data, data) {
		return err
	}
	p.changes = append([]*change{{path: RecordFile, before: before, after: data, mode: 0o600}}, p.changes...)
	return nil
}

// apply carries the plan out.
func (p *plan) apply() error {
	x := &transaction{tree: p.tree, changes: p.changes, check: p.check, before: p.line}
	if err := x.apply(p.folders); err != nil {
		if errors.Is(err, unix.EROFS) {
			err = fmt.Errorf("%w; --prefix puts the program elsewhere, hooks_dir of the engine its hooks", err)
		}
		return err
	}
	for i := len(p.obsolete) - 1; i >= 0; i-- {
		p.tree.removeFolder(p.obsolete[i])
	}
	if p.clean {
		p.tree.removeRunFiles()
	}
	return nil
}

func (p *plan) result() *Result {
	r := &Result{Notes: p.notes, Kept: p.kept}
	for _, c := range p.changes {
		if c.skipped {
			continue
		}
		r.Changes = append(r.Changes, Change{Path: p.tree.show(c.path), Removed: c.remove, Diff: c.diff(p.tree)})
	}
	return r
}
