package install

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// callers says who would still call the program, one text for each, after the
// planned changes.
func (p *plan) callers() []string {
	list := append(slices.Clone(p.calling), p.criuCallers(p.program)...)
	if f, err := p.tree.readText(p.script.Name); err == nil && f != nil && p.isScript(f) {
		list = append(list, p.criuCallers(p.script.Name)...)
	}
	if n := p.tree.containersWith(p.program); n > 0 {
		list = append(list, fmt.Sprintf("%d containers of podman or CRI-O were created with hooks and do not start without it: "+
			"recreate them, and uninstall again", n))
	}
	return list
}

// criuCallers says which of CRIU's configuration files would still call a file
// after the planned changes.
func (p *plan) criuCallers(called string) []string {
	var list []string
	for _, name := range criuFiles {
		real, err := p.tree.follow(name)
		if err != nil || slices.ContainsFunc(p.changes, func(c *change) bool { return c.path == real }) {
			continue
		}
		if slices.Contains(ActionScripts(p.tree.text(name)), called) {
			list = append(list, p.tree.show(name)+" calls it: remove that line, and uninstall again")
		}
	}
	return list
}

// containerStorage is where podman and CRI-O keep the specifications of
// containers that exist.
const containerStorage = "/var/lib/containers/storage"

// containersWith counts the containers whose specification names the program.
func (t *tree) containersWith(program string) int {
	count := 0
	for _, driver := range t.names(containerStorage) {
		if !strings.HasSuffix(driver, "-containers") {
			continue
		}
		dir := containerStorage + "/" + driver
		for _, id := range t.names(dir) {
			f, err := t.readText(dir + "/" + id + "/userdata/config.json")
			if err == nil && f != nil && bytes.Contains(f.data, []byte(`"`+program+`"`)) {
				count++
			}
		}
	}
	return count
}
