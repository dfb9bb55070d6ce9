package install

import (
	"bytes"
	"context"
)

// ForceIrmap is the option of CRIU that has it write down the path of each watched
// file instead of a file handle (criu(8)). systemd watches /etc/localtime, mostly a
// symbolic link, for which CRIU finds no path otherwise; a container restored on
// another root filesystem then fails with "Stale file handle".
//
// It changes every dump of the machine: one in which a watched file has no path, and
// is not found by its inode number in /etc, /var/log and a few other folders, fails
// with "Can't dump that handle", where it would have been restored by its handle.
const ForceIrmap = "force-irmap"

// planned is the text of a file after the changes that are planned already.
func (p *plan) planned(name string) (before *file, text []byte, pending *change, err error) {
	for _, c := range p.changes {
		if c.path == name {
			return c.before, c.after, c, nil
		}
	}
	if before, err = p.tree.readText(name); before != nil {
		text = before.data
	}
	return before, text, nil, err
}

// writeForceIrmap plans the line, unless the option is there.
func (p *plan) writeForceIrmap() error {
	name, err := p.tree.follow(CRIUFile)
	if err != nil {
		return err
	}
	before, text, pending, err := p.planned(name)
	if err != nil || HasOption(string(text), ForceIrmap) {
		return err
	}
	p.record.ForceIrmap = &recordedLine{File: CRIUFile, Created: before == nil || p.record.Line != nil && p.record.Line.Created}
	text, p.record.ForceIrmap.Newline = appendLine(text, ForceIrmap+"\n")
	p.note("%s: every dump of this machine now looks for watched files by their paths. A dump in which one has none, "+
		"and is not in /etc, /var/log or the like, fails (\"Can't dump that handle\")", ForceIrmap)
	if pending != nil {
		pending.after = text
		return nil
	}
	return p.write(name, before, text, 0o644)
}

// removeForceIrmap plans the removal of the line, if it was put there.
func (p *plan) removeForceIrmap() error {
	recorded := p.record.ForceIrmap
	p.record.ForceIrmap = nil
	if recorded == nil {
		return nil
	}
	name, err := p.tree.follow(CRIUFile)
	if err != nil {
		return err
	}
	before, text, pending, err := p.planned(name)
	if err != nil || before == nil {
		return err
	}
	var rest []byte
	last := false
	for line := range bytes.Lines(text) {
		if last = string(bytes.TrimSpace(line)) == ForceIrmap; !last {
			rest = append(rest, line...)
		}
	}
	if last && recorded.Newline {
		rest = bytes.TrimSuffix(rest, []byte("\n"))
	}
	if !bytes.Equal(rest, text) {
		p.rewrite(name, before, pending, rest, recorded.Created)
	}
	return nil
}

// rewrite plans the text of a file of which a line is removed. One that we have
// created, and that is empty then, is removed.
func (p *plan) rewrite(name string, before *file, pending *change, text []byte, created bool) {
	if pending == nil {
		pending = &change{path: name, before: before}
		p.changes = append(p.changes, pending)
	}
	pending.after, pending.remove = text, len(text) == 0 && created
}

// Checkpointer is what a machine's CRIU will be able to do at a checkpoint.
type Checkpointer struct {
	// Version is that of the oldest; Found is whether there is any whose version is
	// known.
	Version Version
	Found   bool
	// ForceIrmap is whether every CRIU of the machine reads that option.
	ForceIrmap bool
}

// LookAtCRIU asks the CRIU of a root folder, and no engine.
func LookAtCRIU(ctx context.Context, root string) (c Checkpointer, err error) {
	t, err := openTree(root)
	if err != nil {
		return c, err
	}
	defer t.close()
	for _, found := range t.find("criu") {
		out, err := t.run(ctx, found, "--version")
		if v, ok := ParseVersion(string(out)); err == nil && ok && (!c.Found || v.Less(c.Version)) {
			c.Version, c.Found = v, true
		}
	}
	for _, name := range criuFiles[:2] { // the others only some runtimes name
		c.ForceIrmap = c.ForceIrmap || HasOption(t.text(name), ForceIrmap)
	}
	return c, nil
}
