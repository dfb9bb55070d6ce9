// Package forecast predicts why CRIU will fail to checkpoint a container, or to restore
// it elsewhere, while the cause can still be removed. It covers causes that systemd and
// automount bring with them, not everything that CRIU cannot do.
package forecast

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// Problem is one reason why CRIU will fail.
type Problem struct {
	// When is "checkpoint", or "restore" if only a restore fails.
	When string `json:"when"`
	What string `json:"what"`
	// Next is what to do about it.
	Next string `json:"next"`
}

// Values of Problem.When.
const (
	atCheckpoint = "checkpoint"
	atRestore    = "restore"
)

// Machine describes the CRIU of a machine.
type Machine struct {
	// CRIU is its version, "" if none was found.
	CRIU string
	// TooOld is whether it cannot take action scripts from a configuration file.
	TooOld bool
	// ForceIrmap is whether a configuration file that every CRIU of the machine reads
	// sets force-irmap.
	ForceIrmap bool
}

// Problems returns the problems of the machine.
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

// Autofs is what matters to CRIU of an autofs mount.
type Autofs struct {
	Namespace uint64
	Path      string
	Type      autofs.Type
	// Daemon is whether automount serves it.
	Daemon bool
	// Covers are the paths of the mounts on it, except autofs mounts.
	Covers []string
	// Unread is the number of bytes in the pipe of its master.
	Unread int
}

// maxNamed bounds how many paths a line names.
const maxNamed = 8

// Maps returns the problems of mounts of automount and of systemd that CRIU 4.2 cannot
// dump or restore. A path in several mount namespaces counts once.
func Maps(list []Autofs) []Problem {
	var active, unread, rootless []string
	for _, m := range list {
		if m.Unread > 0 {
			unread = append(unread, m.Path)
		}
		if m.Daemon && m.Type != autofs.Indirect && covered(m) {
			active = append(active, m.Path)
		}
		if m.Type != autofs.Offset {
			continue
		}
		if parent := daemonParentOf(m, list); parent != nil && !hasRoot(m, *parent) {
			rootless = append(rootless, m.Path)
		}
	}
	return slices.Concat(
		problem(active, atCheckpoint, "automount's direct or offset map is mounted at %s, and the daemon holds what lies beneath", "unmount it (in the container: umount), or wait until it expires"),
		problem(unread, atCheckpoint, "requests for %s are in the pipe of a master that has not read them", "see why it does not answer, or try again"),
		nestedMaps(list),
		problem(rootless, atRestore, "an entry of automount with several offsets has none at its root: %s", "unmount it before the checkpoint"),
	)
}

// nestedMaps returns the problem of indirect maps inside other ones. It needs no covers,
// which images do not show.
func nestedMaps(list []Autofs) []Problem {
	var nested []string
	for _, m := range list {
		if m.Type != autofs.Indirect {
			continue
		}
		if parent := daemonParentOf(m, list); parent != nil && parent.Type == autofs.Indirect {
			nested = append(nested, m.Path)
		}
	}
	return problem(nested, atRestore, "an indirect map of automount lies in another one: %s", "unmount it before the checkpoint")
}

// problem returns the problem of the named things, none if there are none. what has %s for
// their names.
func problem(names []string, when, what, next string) []Problem {
	if text := named(names); text != "" {
		return []Problem{{when, fmt.Sprintf(what, text), next}}
	}
	return nil
}

func covered(m Autofs) bool {
	return slices.Contains(m.Covers, m.Path)
}

// daemonParentOf returns the innermost autofs mount that a mount of the same namespace
// lies in, if automount serves both; else nil.
func daemonParentOf(m Autofs, list []Autofs) (parent *Autofs) {
	if !m.Daemon {
		return nil
	}
	for i := range list {
		p := &list[i]
		if p.Namespace == m.Namespace && within(m.Path, p.Path) && (parent == nil || len(p.Path) > len(parent.Path)) {
			parent = p
		}
	}
	if parent == nil || !parent.Daemon {
		return nil
	}
	return parent
}

// hasRoot reports whether a file system is mounted between an offset and the autofs
// mount in which it lies.
func hasRoot(m, parent Autofs) bool {
	return slices.ContainsFunc(parent.Covers, func(c string) bool { return within(m.Path, c) })
}

func within(file, dir string) bool {
	return strings.HasPrefix(file, strings.TrimSuffix(dir, "/")+"/")
}

// named quotes each path once, at most maxNamed; "" for none.
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

// BlockedProcess is the problem of a process that waits on an automount.
func BlockedProcess(pid int, command, path string) Problem {
	return Problem{
		atCheckpoint, fmt.Sprintf("process %d (%q) waits on an automount at %q, and CRIU cannot stop it there", pid, command, path),
		"see why that is not mounted, or end the process",
	}
}

// NoDevice is the problem of a container without /dev/autofs whose systemd has
// automounts.
func NoDevice() Problem {
	return Problem{
		atRestore, "the container has no device /dev/autofs (10:235): CRIU says \"autofs: Failed to get fd\" where the restored one has none",
		"allow it: --device /dev/autofs, linux.devices in config.json, additional_devices in crio.conf",
	}
}

// RestoreProblems says in one line why the restore of a checkpoint will fail because of its
// mounts, or may fail because CRIU has only the file handles of so many (pinned) watches;
// "" if no reason is known.
func RestoreProblems(list []Autofs, pinned int) string {
	var reasons []string
	for _, p := range nestedMaps(list) {
		reasons = append(reasons, fmt.Sprintf("this restore will fail: %s; %s", p.What, p.Next))
	}
	if pinned > 0 {
		reasons = append(reasons, fmt.Sprintf("%d watched files are known to CRIU by their file handles only: on another root filesystem this restore fails with "+
			"\"Stale file handle\"; then make the checkpoint again after autofs-restore-hook install --force-irmap", pinned))
	}
	return strings.Join(reasons, "; ")
}
