package install

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
)

// shell is what the action script needs.
const shell = "/bin/sh"

func (p *plan) setProgram(program string) (err error) {
	p.program = program
	p.script, err = manifests.ActionScript(program)
	return err
}

// isScript reports whether a file is an action script for the program. It is
// replaced like the program itself: it is none of the files that a person edits.
func (p *plan) isScript(f *file) bool {
	program, ok := manifests.CalledBy(p.script.Name, string(f.data))
	return ok && program == p.program
}

// writeActionScript plans the action script and the line that makes CRIU call it.
// Without a shell CRIU calls the program itself.
func (p *plan) writeActionScript() error {
	if _, ok := p.tree.executable(shell); !ok {
		p.note("no %s: CRIU calls the program itself, which needs a few processes more in a container's control group", p.tree.show(shell))
		return p.writeLine(p.program, p.script.Name)
	}
	before, err := p.tree.readText(p.script.Name)
	if err != nil {
		return err
	}
	switch data := []byte(p.script.Data); {
	case before != nil && bytes.Equal(before.data, data) && before.info.Mode&0o111 == 0o111:
	case before != nil && !p.isScript(before):
		return fmt.Errorf("%s: another file is there, which is kept; nothing was written", p.tree.show(p.script.Name))
	default:
		p.record.Script = p.record.Script || before == nil
		if err := p.write(p.script.Name, before, data, 0o755); err != nil {
			return err
		}
	}
	return p.writeLine(p.script.Name, p.program)
}

// writeLine plans the line for CRIU, which calls a file, in the place of a line
// that calls another one.
func (p *plan) writeLine(called, instead string) error {
	line, err := manifests.ActionScriptLine(called)
	if err != nil {
		return err
	}
	name, err := p.tree.follow(CRIUFile)
	if err != nil {
		return err
	}
	p.line, p.called = name, called
	before, err := p.tree.readText(name)
	if err != nil {
		return err
	}
	var text []byte
	if before != nil {
		text = before.data
	}
	scripts := ActionScripts(string(text))
	for _, script := range scripts {
		if base := script[strings.LastIndexByte(script, '/')+1:]; script != called && script != instead && strings.HasPrefix(base, programName) {
			p.note("%s also calls %s, which is kept; the work is done once", p.tree.show(CRIUFile), script)
		}
	}
	switch {
	case slices.Contains(scripts, instead):
		text = replaceLines(text, []string{called, instead}, line, false)
	case slices.Contains(scripts, called):
		return nil
	default:
		p.record.Line = &recordedLine{File: CRIUFile, Created: before == nil}
		text, p.record.Line.Newline = appendLine(text, line)
	}
	return p.write(name, before, text, 0o644)
}

// removeActionScript plans the removal of every line that calls the program, and
// then of the script: CRIU aborts a restore whose action script is missing.
func (p *plan) removeActionScript() error {
	if err := p.removeLine(); err != nil {
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
	case len(callers) > 0 || !p.record.Script:
	case !p.isScript(f):
		p.keep(p.script.Name, "is another file now: remove it by hand")
	default:
		p.changes = append(p.changes, &change{path: p.script.Name, before: f, remove: true, unless: p.unlessCRIU(p.script.Name)})
	}
	p.record.Script = p.record.Script && len(callers) > 0
	return nil
}

func (p *plan) removeLine() error {
	recorded := p.record.Line
	p.record.Line = nil
	name, err := p.tree.follow(CRIUFile)
	if err != nil {
		return err
	}
	before, have, pending, err := p.planned(name)
	if err != nil || before == nil {
		return err
	}
	text := replaceLines(have, []string{p.script.Name, p.program}, "", recorded != nil && recorded.Newline)
	if !bytes.Equal(text, have) {
		p.rewrite(name, before, pending, text, recorded != nil && recorded.Created)
	}
	return nil
}
