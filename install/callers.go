package install

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// callers lists what would still call the program after the planned changes, one message
// each.
func (p *plan) callers() []string {
	list := append(slices.Clone(p.hookCallers), p.criuCallers(p.program)...)
	if f, err := p.tree.readText(p.script.Name); err == nil && f != nil && p.isScript(f) {
		list = append(list, p.criuCallers(p.script.Name)...)
	}
	if n := p.tree.containersWith(p.program); n > 0 {
		list = append(list, fmt.Sprintf("%d containers of podman or CRI-O were created with hooks and do not start without it: "+
			"recreate them, and uninstall again", n))
	}
	return list
}

// criuCallers lists CRIU's configuration files that would still call a file after the
// planned changes, one message each.
func (p *plan) criuCallers(callee string) []string {
	var list []string
	for _, name := range criuFiles {
		target, err := p.tree.follow(name)
		if err == nil && p.change(target) == nil && slices.Contains(ActionScripts(p.tree.text(name)), callee) {
			list = append(list, p.tree.show(name)+" calls it: remove that line, and uninstall again")
		}
	}
	return list
}

// containerStorage is where podman and CRI-O keep the specifications of containers.
const containerStorage = "/var/lib/containers/storage"

// containersWith counts the containers whose specification names the program.
func (t *tree) containersWith(program string) int {
	count := 0
	for _, driver := range t.listDir(containerStorage) {
		if !strings.HasSuffix(driver, "-containers") {
			continue
		}
		dir := containerStorage + "/" + driver
		for _, id := range t.listDir(dir) {
			f, err := t.readText(dir + "/" + id + "/userdata/config.json")
			if err == nil && f != nil && bytes.Contains(f.data, []byte(`"`+program+`"`)) {
				count++
			}
		}
	}
	return count
}
