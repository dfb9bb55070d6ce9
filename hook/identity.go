package hook

import (
	"encoding/hex"
	"hash/fnv"
	"path"
	"strconv"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// maxID bounds a container's name in file names, in bytes.
const maxID = 200

// containerName finds what the engine calls the container: what it told us,
// else the last argument of the runtime that runs CRIU ("runc restore … ID"),
// else the container's control group, else its process number.
func containerName(e Event, init *nsenter.Process) string {
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
		return fileName(id)
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

// idOfGroup takes a container's name from a control group: the engines' names
// are "libpod-ID.scope", "crio-ID.scope", "cri-containerd-ID.scope", "/ID".
func idOfGroup(group string) string {
	group = strings.TrimSuffix(strings.TrimSuffix(path.Clean(group), "/init.scope"), "/container") // crun's for podman
	name := strings.TrimSuffix(path.Base(group), ".scope")
	if i := strings.LastIndexByte(name, '-'); i >= 0 && len(name)-i > 32 {
		name = name[i+1:]
	}
	if name == "/" || name == "." {
		return ""
	}
	return name
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
