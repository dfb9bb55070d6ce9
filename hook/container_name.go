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

// maxID is the longest container name in file names, in bytes.
const maxID = 200

// containerName returns the engine's name for the container, as a file name: that of the
// event, else the last argument of the runtime that runs CRIU ("runc restore … ID"),
// else a name from the container's control group, else the first process's number.
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

// idOfGroups returns the container's name from its control groups, "" if there is none.
// The hierarchy of version 2 has precedence: on a host with both versions the group in
// another hierarchy may be the engine's own.
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

// idOfGroup returns the container's name from the path of a control group. Engines use
// "libpod-ID.scope", "crio-ID.scope", "cri-containerd-ID.scope" and "/ID", where ID is
// 64 hexadecimal digits. The first part of this form counts, since the container itself
// names the groups below. Without one it is the last part, except for the groups that
// systemd and crun create below it.
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

// engineID returns the ID that a part of a control group's path ends with, "" if there
// is none.
func engineID(part string) string {
	const length = 64
	id := strings.TrimSuffix(part, ".scope")
	id = id[strings.LastIndexByte(id, '-')+1:]
	if len(id) != length || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id
}

// freeName returns the name for the container's report. A container can choose the last
// part of its control group, so that another running container may have the same name:
// then it is the process number.
func (r Runner) freeName(name string, init *nsenter.Process) string {
	var other report.Report
	data, err := os.ReadFile(r.journal().ReportPath(name))
	if err != nil || json.Unmarshal(data, &other) != nil || other.PID == init.PID() {
		return name
	}
	p, err := nsenter.Open(other.PID)
	if err != nil {
		return name // the other container has ended
	}
	defer p.Close()
	if fileName(idOfGroups(p)) != name {
		return name
	}
	return "pid-" + strconv.Itoa(init.PID())
}

// parentOf returns the pid of a process's parent, 0 if it cannot be read.
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

// fileName returns the container's name if it is a safe file name, else a hash of it.
func fileName(id string) string {
	if validID(id) {
		return id
	}
	sum := fnv.New128a()
	_, _ = sum.Write([]byte(id)) // never fails
	return "id-" + hex.EncodeToString(sum.Sum(nil))
}
