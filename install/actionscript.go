package install

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
)

// shell is the interpreter of the action script.
const shell = "/bin/sh"

func (p *plan) setProgram(program string) (err error) {
	p.program = program
	p.script, err = manifests.ActionScript(program)
	return err
}

// isScript reports whether a file is an action script for the program. Like the program
// it is replaced even if it was edited: it is no configuration.
func (p *plan) isScript(f *file) bool {
	program, ok := manifests.CalledBy(p.script.Name, string(f.data))
	return ok && program == p.program
}

// writeActionScript plans the action script and the line that makes CRIU call it.
// Without a shell CRIU calls the program itself.
func (p *plan) writeActionScript() error {
	if p.tree.executable(shell) == nil {
		p.note("no %s: CRIU calls the program itself, which needs a few more processes in a container's control group", p.tree.show(shell))
		return p.writeScriptLine(p.program, p.script.Name)
	}
	before, err := p.tree.readText(p.script.Name)
	if err != nil {
		return err
	}
	switch data := []byte(p.script.Data); {
	case before != nil && bytes.Equal(before.data, data) && before.info.Mode()&0o111 == 0o111:
	case before != nil && !p.isScript(before):
		return fmt.Errorf("%s: another file is there, which is kept; nothing was written", p.tree.show(p.script.Name))
	default:
		p.record.ScriptWritten = p.record.ScriptWritten || before == nil
		if err := p.add(&change{path: p.script.Name, before: before, after: data, mode: 0o755}); err != nil {
			return err
		}
	}
	return p.writeScriptLine(p.script.Name, p.program)
}

// writeScriptLine plans the line that makes CRIU call callee. It replaces a line that
// calls former.
func (p *plan) writeScriptLine(callee, former string) error {
	line, err := manifests.ActionScriptLine(callee)
	if err != nil {
		return err
	}
	p.callee = callee
	return p.editCRIUFile(false, func(text []byte, created bool) []byte {
		scripts := ActionScripts(string(text))
		for _, script := range scripts {
			if script != callee && script != former && strings.HasPrefix(path.Base(script), programName) {
				p.note("%s also calls %s, which is kept; the work is done once", p.tree.show(CRIUFile), script)
			}
		}
		switch {
		case slices.Contains(scripts, former):
			return replaceLines(text, callsAny(callee, former), line, false)
		case slices.Contains(scripts, callee):
			return text
		}
		p.record.ScriptLine = &recordedLine{File: CRIUFile, Created: created}
		text, p.record.ScriptLine.Newline = appendLine(text, line)
		return text
	})
}

// removeActionScript plans the removal of every line that calls the program, and
// then of the script: CRIU aborts a restore whose action script is missing.
func (p *plan) removeActionScript() error {
	if err := p.removeScriptLine(); err != nil {
		return err
	}
	f, err := p.tree.readText(p.script.Name)
	if err != nil || f == nil {
		return err
	}
	callers := p.criuCallers(p.script.Name)
	for _, c := range callers {
		p.keep(p.script.Name, c)
	}
	switch {
	case len(callers) > 0 || !p.record.ScriptWritten:
	case !p.isScript(f):
		p.keep(p.script.Name, "is another file now: remove it by hand")
	default:
		p.remove(p.script.Name, f, p.skipWhileCRIURuns(p.script.Name))
	}
	p.record.ScriptWritten = p.record.ScriptWritten && len(callers) > 0
	return nil
}

func (p *plan) removeScriptLine() error {
	line := recordedLine{}
	if p.record.ScriptLine != nil {
		line = *p.record.ScriptLine
	}
	p.record.ScriptLine = nil
	return p.editCRIUFile(line.Created, func(text []byte, _ bool) []byte {
		return replaceLines(text, callsAny(p.script.Name, p.program), "", line.Newline)
	})
}

// editCRIUFile plans an edit of CRIU's configuration, on top of the edits planned before.
// created tells edit that the file does not exist. removeEmpty removes a file that an
// edit leaves empty.
func (p *plan) editCRIUFile(removeEmpty bool, edit func(text []byte, created bool) []byte) error {
	name, err := p.tree.follow(CRIUFile)
	if err != nil {
		return err
	}
	p.criuFile = name
	c := p.change(name)
	planned := c != nil
	if !planned {
		c = &change{path: name, mode: 0o644}
		if c.before, err = p.tree.readText(name); err != nil {
			return err
		}
		if c.before != nil {
			c.after = c.before.data
		}
	}
	text := edit(c.after, c.before == nil)
	if bytes.Equal(text, c.after) {
		return nil
	}
	c.after, c.remove = text, removeEmpty && len(text) == 0
	if planned {
		return nil
	}
	return p.add(c)
}
