// Package forecast tells what CRIU will fail at when it checkpoints a container, or
// restores it elsewhere, while there is still something to be done about it. It
// tells of what systemd and automount bring with them, not of everything that CRIU
// cannot do.
package forecast

import (
	"fmt"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// Problem is one thing that CRIU will fail at.
type Problem struct {
	// When is "checkpoint", or "restore" for what only a restore fails at.
	When string `json:"when"`
	What string `json:"what"`
	// Next is what to do about it.
	Next string `json:"next"`
}

// When something fails.
const (
	atCheckpoint = "checkpoint"
	atRestore    = "restore"
)

// Machine is what is known of the CRIU that will work.
type Machine struct {
	// CRIU is its version, "" if none was found.
	CRIU string
	// TooOld is whether it is before the first that takes action scripts from a
	// configuration file.
	TooOld bool
	// ForceIrmap is whether a configuration that every CRIU of the machine reads has
	// force-irmap.
	ForceIrmap bool
}

// Problems are those of the machine.
func (m Machine) Problems() []Problem {
	switch {
	case m.CRIU == "":
		return []Problem{{atCheckpoint, "no CRIU was found on this machine", "install criu 3.19 or later"}}
	case m.TooOld:
		return []Problem{{
			atRestore, fmt.Sprintf("CRIU %s cannot take an action script from its configuration: control groups that systemd watches are not created, and the restore fails", m.CRIU),
			"install criu 3.19 or later",
		}}
	}
	return nil
}

// Autofs is one autofs mount, as far as it matters to CRIU.
type Autofs struct {
	Namespace uint64
	Path      string
	Type      autofs.Type
	// Daemon is whether automount serves it.
	Daemon bool
	// Covers are the mounts on it that are no autofs mounts, by path.
	Covers []string
	// Unread is how many bytes are in the pipe of its master.
	Unread int
}

// maxNamed bounds how many paths a line names.
const maxNamed = 8

// Maps looks for mounts of automount and of systemd that CRIU 4.2 cannot dump or
// restore. Each path counts once, in however many mount namespaces it is.
func Maps(list []Autofs) []Problem {
	var active, unread, nested, rootless []string
	for _, m := range list {
		if m.Unread > 0 {
			unread = append(unread, m.Path)
		}
		if !m.Daemon {
			continue
		}
		if m.Type != autofs.Indirect && covered(m) {
			active = append(active, m.Path)
		}
		parent := parentOf(m, list)
		switch {
		case parent == nil || !parent.Daemon:
		case m.Type == autofs.Indirect && parent.Type == autofs.Indirect:
			nested = append(nested, m.Path)
		case m.Type == autofs.Offset && !hasRoot(m, *parent):
			rootless = append(rootless, m.Path)
		}
	}
	var problems []Problem
	add := func(paths []string, when, what, next string) {
		if names := named(paths); names != "" {
			problems = append(problems, Problem{when, fmt.Sprintf(what, names), next})
		}
	}
	add(active, atCheckpoint, "automount's direct or offset map is mounted at %s, and the daemon holds what lies beneath", "unmount it (in the container: umount), or wait until it expires")
	add(unread, atCheckpoint, "requests for %s are in the pipe of a master that has not read them", "see why it does not answer, or try again")
	add(nested, atRestore, "an indirect map of automount lies in another one: %s", "unmount it before the checkpoint")
	add(rootless, atRestore, "an entry of automount with several offsets has none at its root: %s", "unmount it before the checkpoint")
	return problems
}

func covered(m Autofs) bool {
	for _, c := range m.Covers {
		if c == m.Path {
			return true
		}
	}
	return false
}

// parentOf is the innermost autofs mount of the same namespace in which a mount lies.
func parentOf(m Autofs, list []Autofs) (parent *Autofs) {
	for i := range list {
		p := &list[i]
		if p.Namespace == m.Namespace && within(m.Path, p.Path) && (parent == nil || len(p.Path) > len(parent.Path)) {
			parent = p
		}
	}
	return parent
}

// hasRoot reports whether a file system is mounted between an offset and the autofs
// mount in which it lies.
func hasRoot(m, parent Autofs) bool {
	for _, c := range parent.Covers {
		if within(m.Path, c) {
			return true
		}
	}
	return false
}

func within(file, dir string) bool {
	return strings.HasPrefix(file, strings.TrimSuffix(dir, "/")+"/")
}

// named quotes each path once, the first few if they are many; "" for none.
func named(paths []string) string {
	var quoted []string
	seen := map[string]bool{}
	for _, p := range paths {
		if !seen[p] {
			quoted = append(quoted, fmt.Sprintf("%q", p))
		}
		seen[p] = true
	}
	if more := len(quoted) - maxNamed; more > 0 {
		quoted = append(quoted[:maxNamed], fmt.Sprintf("%d more", more))
	}
	return strings.Join(quoted, ", ")
}

// Waiting is the problem of a process that waits on an automount.
func Waiting(pid int, command, path string) Problem {
	return Problem{
		atCheckpoint, fmt.Sprintf("process %d (%q) waits on an automount at %q, and CRIU cannot stop it there", pid, command, path),
		"see why that is not mounted, or end the process",
	}
}

// NoDevice is the problem of a container whose systemd has automounts, and that has
// no /dev/autofs.
func NoDevice() Problem {
	return Problem{
		atRestore, "the container has no device /dev/autofs (10:235): CRIU says \"autofs: Failed to get fd\" where the restored one has none",
		"allow it: --device /dev/autofs, linux.devices in config.json, additional_devices in crio.conf",
	}
}

// OfImages is what the restore of a checkpoint fails at for its maps, or may fail at
// because CRIU remembers so many watches by their file handles. It is one line, "" for
// nothing.
func OfImages(list []Autofs, pinned int) string {
	var said []string
	for _, p := range Maps(list) {
		if p.When == atRestore && !strings.Contains(p.What, "several offsets") { // what covers a mount is not known
			said = append(said, fmt.Sprintf("this restore will fail: %s; %s", p.What, p.Next))
		}
	}
	if pinned > 0 {
		said = append(said, fmt.Sprintf("%d watched files are known to CRIU by their file handles only: on another root filesystem this restore fails with "+
			"\"Stale file handle\"; then make the checkpoint again after autofs-restore-hook install --force-irmap", pinned))
	}
	return strings.Join(said, "; ")
}
