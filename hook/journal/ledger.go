package journal

import (
	"errors"
	"io/fs"
	"slices"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// ledger lists the confirmed mounts of a container: a run has verified that their masters
// know them. The checkpoint images do not show that; they have the old device numbers.
type ledger struct {
	Mounts []ledgerEntry `json:"mounts"`
}

// ledgerEntry identifies a mount and its master.
type ledgerEntry struct {
	Namespace uint64 `json:"namespace"`
	Path      string `json:"path"`
	Device    uint64 `json:"device"` // st_dev
	Mount     int    `json:"mount"`  // mount id
	Master    string `json:"master"` // nsenter's Process.Identity
}

var ledgers = &Kind[ledger]{folder: containersFolder, suffix: ".json", version: 1, label: "ledger of repaired mounts"}

func newLedgerEntry(m *container.Mount) ledgerEntry {
	return ledgerEntry{Namespace: m.Namespace, Path: m.Path, Device: m.Device, Mount: m.ID, Master: m.Master.Identifier()}
}

// SetConfirmed replaces the ledger by the given mounts. With none it keeps the ledger.
func (s Store) SetConfirmed(init *nsenter.Process, list []*container.Mount) error {
	var l ledger
	for _, m := range list {
		l.Mounts = append(l.Mounts, newLedgerEntry(m))
	}
	if len(l.Mounts) == 0 {
		return nil
	}
	return ledgers.Of(s, init).Save(l)
}

// AddConfirmed adds mounts to the ledger. It is called as soon as they are cured, in case
// the run ends early or the handover is lost.
func (s Store) AddConfirmed(init *nsenter.Process, list []*container.Mount) error {
	if len(list) == 0 {
		return nil
	}
	e := ledgers.Of(s, init)
	l, err := e.Peek()
	if err != nil {
		l = ledger{} // there is none, or it has another version
	}
	for _, m := range list {
		if added := newLedgerEntry(m); !slices.Contains(l.Mounts, added) {
			l.Mounts = append(l.Mounts, added)
		}
	}
	return e.Save(l)
}

// MarkConfirmed sets Confirmed of the mounts, by the ledger.
func (s Store) MarkConfirmed(init *nsenter.Process, list []container.Mount) error {
	l, err := ledgers.Of(s, init).Peek()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	known := make(map[ledgerEntry]bool, len(l.Mounts))
	for _, confirmed := range l.Mounts {
		known[confirmed] = true
	}
	for i := range list {
		list[i].Confirmed = known[newLedgerEntry(&list[i])]
	}
	return nil
}
