package master

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Identity is the kind of a process that serves autofs mounts, by its files in /proc.
type Identity struct {
	Kind Kind
	PID  int // on the host
}

// Identify returns which kind of master a process is.
func Identify(p *nsenter.Process) (Identity, error) {
	id := Identity{Kind: Other, PID: p.PID()}
	inner, err := ContainerPID(p)
	if err != nil {
		return id, err
	}
	comm, err := p.ReadFile("comm", 1<<10)
	if err != nil {
		return id, err
	}
	names := []string{strings.TrimSuffix(string(comm), "\n")}
	if exe, err := p.Readlink("exe"); err == nil {
		names = append(names, path.Base(strings.TrimSuffix(exe, " (deleted)")))
	}
	for _, name := range names {
		switch {
		case name == "systemd" && inner == 1:
			id.Kind = Systemd
		case name == "automount":
			id.Kind = Automount
		}
	}
	return id, nil
}

// Pipes returns the pipes that the process has open for reading: the file
// descriptor by the pipe's inode number.
func Pipes(p *nsenter.Process) (map[uint64]int, error) {
	files, err := p.Descriptors()
	if err != nil {
		return nil, err
	}
	found := map[uint64]int{}
	for _, fd := range files {
		inode, err := PipeAt(p, fd)
		if err != nil {
			continue // another kind of file, or closed meanwhile
		}
		if mode, err := p.LinkMode("fd/" + strconv.Itoa(fd)); err == nil && mode&0o400 != 0 {
			found[inode] = fd
		}
	}
	return found, nil
}

// PipeAt returns the inode number of the pipe behind a descriptor of the process.
func PipeAt(p *nsenter.Process, fd int) (uint64, error) {
	link, err := p.Readlink("fd/" + strconv.Itoa(fd))
	if err != nil {
		return 0, err
	}
	text, isPipe := strings.CutPrefix(link, "pipe:[")
	if !isPipe {
		return 0, fmt.Errorf("%.40q is not a pipe", link)
	}
	return strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
}

// ContainerPID is the last number in the line "NSpid:" of /proc/<pid>/status.
func ContainerPID(p *nsenter.Process) (int, error) {
	value, err := p.Status("NSpid")
	if err != nil {
		return 0, err
	}
	numbers := strings.Fields(value)
	if len(numbers) == 0 {
		return 0, fmt.Errorf("process %d: /proc/%d/status: NSpid is empty", p.PID(), p.PID())
	}
	return strconv.Atoi(numbers[len(numbers)-1])
}
