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

// isActionScript reports whether a file is the action script that this version
// writes under that name.
func isActionScript(name string, data []byte) bool {
	program, ok := manifests.CalledBy(name)
	if !ok {
		return false
	}
	f, err := manifests.ActionScript(program)
	return err == nil && string(data) == f.Data
}

// writeActionScript plans the action script and the line that makes CRIU call it.
// Without a shell CRIU calls the program itself.
func (p *plan) writeActionScript() error {
	script, err := manifests.ActionScript(p.program)
	if err != nil {
		return err
	}
	if _, ok := p.tree.executable(shell); !ok {
		p.note("no %s: CRIU calls the program itself, which needs a few processes more in a container's control group", p.tree.show(shell))
		return p.writeLine(p.program, script.Name)
	}
	before, err := p.tree.readText(script.Name)
	if err != nil {
		return err
	}
	if before != nil && p.record.file(CRIU, script.Name) == nil && !isActionScript(script.Name, before.data) {
		return fmt.Errorf("%s: another file is there, which is kept; nothing was written", p.tree.show(script.Name))
	}
	if err := p.writeFile(CRIU, script.Name, []byte(script.Data), 0o755); err != nil {
		return err
	}
	return p.writeLine(script.Name, p.program)
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
	script, err := manifests.ActionScript(p.program)
	if err != nil {
		return err
	}
	if err := p.removeLine(script.Name); err != nil {
		return err
	}
	if callers := p.criuCallers(script.Name); len(callers) > 0 {
		for _, c := range callers {
			p.keep(script.Name, c)
		}
		p.calling = append(p.calling, p.tree.show(script.Name)+" calls it")
		return nil
	}
	return p.removeFiles(CRIU, []string{script.Name})
}

func (p *plan) removeLine(script string) error {
	recorded := p.record.Line
	p.record.Line = nil
	name, err := p.tree.follow(CRIUFile)
	if err != nil {
		return err
	}
	before, err := p.tree.readText(name)
	if err != nil || before == nil {
		return err
	}
	text := replaceLines(before.data, []string{script, p.program}, "", recorded != nil && recorded.Newline)
	switch {
	case bytes.Equal(text, before.data):
	case len(text) == 0 && recorded != nil && recorded.Created:
		p.changes = append(p.changes, &change{path: name, before: before, remove: true})
	default:
		p.changes = append(p.changes, &change{path: name, before: before, after: text})
	}
	return nil
}
