package journal

import (
	"errors"
	"io/fs"
	"slices"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Confirmed is a mount of which a run has made sure that its master knows it by this
// number. Later runs cannot see that in the checkpoint images, which have the number
// from before.
type Confirmed struct {
	Namespace uint64 `json:"namespace"`
	Path      string `json:"path"`
	Device    uint64 `json:"device"` // st_dev
	Mount     int    `json:"mount"`
	Master    string `json:"master"` // nsenter's Process.Identity
}

// ledger lists the confirmed mounts of a container, until it ends.
type ledger struct {
	Mounts []Confirmed `json:"mounts"`
}

var ledgers = &Kind[ledger]{containersFolder, ".json", 1, "record of repaired mounts", nil}

// confirmed is the mount as the ledger has it.
func confirmed(m *container.Mount) Confirmed {
	return Confirmed{Namespace: m.Namespace, Path: m.Path, Device: m.Device, Mount: m.ID, Master: m.Master.Identifier()}
}

// Confirm records the mounts that are known to their masters now, in the place of
// those that were.
func (s Store) Confirm(init *nsenter.Process, list []*container.Mount) error {
	var l ledger
	for _, m := range list {
		l.Mounts = append(l.Mounts, confirmed(m))
	}
	if len(l.Mounts) == 0 {
		return nil
	}
	return ledgers.Of(s, init).Save(l)
}

// AlsoConfirm adds mounts to the ledger as soon as they are cured: this run, or the
// handover of the restore, may get lost before the end.
func (s Store) AlsoConfirm(init *nsenter.Process, list []*container.Mount) error {
	if len(list) == 0 {
		return nil
	}
	e := ledgers.Of(s, init)
	l, err := e.Peek()
	if err != nil {
		l = ledger{} // none yet, or of another release
	}
	for _, m := range list {
		if c := confirmed(m); !slices.Contains(l.Mounts, c) {
			l.Mounts = append(l.Mounts, c)
		}
	}
	return e.Save(l)
}

// MarkConfirmed marks the mounts that an earlier run has confirmed and that are
// still as they were then.
func (s Store) MarkConfirmed(init *nsenter.Process, list []container.Mount) error {
	l, err := ledgers.Of(s, init).Peek()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	known := make(map[Confirmed]bool, len(l.Mounts))
	for _, c := range l.Mounts {
		known[c] = true
	}
	for i := range list {
		list[i].Confirmed = known[confirmed(&list[i])]
	}
	return nil
}
