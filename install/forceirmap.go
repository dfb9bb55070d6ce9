package install

import (
	"context"
	"strings"
)

// ForceIrmap is the option of CRIU that stores the path of each watched file instead of
// a file handle (criu(8)). systemd watches /etc/localtime, usually a symbolic link, whose
// path CRIU does not find otherwise; a container restored on another root filesystem then
// fails with "Stale file handle".
//
// It affects every dump of the machine: one in which a watched file has no path, and
// is not found by its inode number in /etc, /var/log and a few other directories, fails
// with "Can't dump that handle" where its handle would have been restored.
const ForceIrmap = "force-irmap"

// writeForceIrmap plans the line, unless the option is set.
func (p *plan) writeForceIrmap() error {
	return p.editCRIUFile(false, func(text []byte, created bool) []byte {
		if hasForceIrmap(string(text)) {
			return text
		}
		line := &recordedLine{File: CRIUFile, Created: created || p.record.ScriptLine != nil && p.record.ScriptLine.Created}
		text, line.Newline = appendLine(text, ForceIrmap+"\n")
		p.record.ForceIrmap = line
		p.note("%s: every dump of this machine now looks for watched files by their paths. A dump in which one has none, "+
			"and is not in /etc, /var/log or the like, fails (\"Can't dump that handle\")", ForceIrmap)
		return text
	})
}

// removeForceIrmap plans the removal of the line that Install wrote.
func (p *plan) removeForceIrmap() error {
	line := p.record.ForceIrmap
	if line == nil {
		return nil
	}
	p.record.ForceIrmap = nil
	matches := func(line string) bool { return strings.TrimSpace(line) == ForceIrmap }
	return p.editCRIUFile(line.Created, func(text []byte, _ bool) []byte {
		return replaceLines(text, matches, "", line.Newline)
	})
}

// CRIUInfo describes the CRIU of a machine, for a forecast of its checkpoints.
type CRIUInfo struct {
	// Version is that of the oldest CRIU; Found is whether any version is known.
	Version Version
	Found   bool
	// ForceIrmap is whether every CRIU of the machine reads that option.
	ForceIrmap bool
}

// InspectCRIU reads the versions and the configuration of CRIU below a root directory. It
// does not run any engine.
func InspectCRIU(ctx context.Context, root string) (info CRIUInfo, err error) {
	t, err := openTree(root)
	if err != nil {
		return info, err
	}
	defer t.close()
	for _, program := range t.lookPath("criu") {
		if v, err := t.programVersion(ctx, program); err == nil && (!info.Found || v.Less(info.Version)) {
			info.Version, info.Found = v, true
		}
	}
	for _, name := range criuFiles[:2] { // the others are read under some runtimes only
		info.ForceIrmap = info.ForceIrmap || hasForceIrmap(t.text(name))
	}
	return info, nil
}
