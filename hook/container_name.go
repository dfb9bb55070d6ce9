package hook

import (
	"encoding/hex"
	"encoding/json"
	"hash/fnv"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// maxID bounds a container's name in file names, in bytes.
const maxID = 200

// containerName finds what the engine calls the container: what it told us,
// else the last argument of the runtime that runs CRIU ("runc restore … ID"),
// else the container's control group, else its process number.
func (r Runner) containerName(e Event, init *nsenter.Process) string {
	if e.ContainerID != "" {
		return fileName(e.ContainerID)
	}
	if e.CRIU > 0 {
		if words := commandLine(parentOf(e.CRIU)); len(words) > 2 && isRuntime(words[0]) {
			if id := words[len(words)-1]; validID(id) {
				return id
			}
		}
	}
	if id := idOfGroups(init); id != "" {
		return r.freeName(fileName(id), init)
	}
	return "pid-" + strconv.Itoa(init.PID())
}

// idOfGroups asks the hierarchy of version 2 first: on a host with both, the
// others may hold only what contains the engine itself.
func idOfGroups(init *nsenter.Process) string {
	groups, err := cgroup.Of(init)
	if err != nil {
		return ""
	}
	found := ""
	for _, g := range groups {
		id := idOfGroup(g.Path)
		switch {
		case id != "" && g.Controllers == "":
			return id
		case found == "":
			found = id
		}
	}
	return found
}

// idOfGroup takes a container's name from a control group. The engines' names are
// "libpod-ID.scope", "crio-ID.scope", "cri-containerd-ID.scope", "/ID", where ID is
// 64 hexadecimal digits: the first that looks like one of these is it, since what
// comes below is the container's own. Else it is the last part, but for what
// systemd and crun have below.
func idOfGroup(group string) string {
	for part := range strings.SplitSeq(group, "/") {
		if id := engineID(part); id != "" {
			return id
		}
	}
	group = strings.TrimSuffix(strings.TrimSuffix(path.Clean(group), "/init.scope"), "/container") // crun's for podman
	name := strings.TrimSuffix(path.Base(group), ".scope")
	if name == "/" || name == "." {
		return ""
	}
	return name
}

// engineID is the name that an engine gave, if a part of a control group's path
// ends with one.
func engineID(part string) string {
	const length = 64
	id := strings.TrimSuffix(part, ".scope")
	id = id[strings.LastIndexByte(id, '-')+1:]
	if len(id) != length || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id
}

// freeName is the name that a report is written under: not the one of another
// container that lives and is called the same. A container can choose the last
// part of its control group.
func (r Runner) freeName(name string, init *nsenter.Process) string {
	var other report.Report
	data, err := os.ReadFile(r.journal().ReportPath(name))
	if err != nil || json.Unmarshal(data, &other) != nil || other.PID == init.PID() {
		return name
	}
	p, err := nsenter.Open(other.PID)
	if err != nil {
		return name // of a container that has ended, most likely the same one
	}
	defer p.Close()
	if fileName(idOfGroups(p)) != name {
		return name
	}
	return "pid-" + strconv.Itoa(init.PID())
}

// parentOf is the number of a process's parent, 0 if it cannot be read.
func parentOf(pid int) int {
	p, err := nsenter.Open(pid)
	if err != nil {
		return 0
	}
	defer p.Close()
	value, err := p.Status("PPid")
	if err != nil {
		return 0
	}
	parent, err := strconv.Atoi(value)
	if err != nil {
		return 0
	}
	return parent
}

// idBytes are the bytes that runtimes allow in a container's name.
const idBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+-"

func validID(id string) bool {
	if id == "" || len(id) > maxID || strings.ContainsRune(".+-", rune(id[0])) {
		return false
	}
	return strings.Trim(id, idBytes) == ""
}

// fileName makes a container's name usable as a file name, and leaves those
// alone that are.
func fileName(id string) string {
	if validID(id) {
		return id
	}
	sum := fnv.New128a()
	_, _ = sum.Write([]byte(id)) // never fails
	return "id-" + hex.EncodeToString(sum.Sum(nil))
}
