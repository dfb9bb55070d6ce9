package hook

import (
	"os"
	"path/filepath"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// A run that is killed while it tells systemd new device numbers leaves it open
// which ones that systemd remembers. So it leaves a mark first. While the mark
// stands, mounts are not made anew with their old numbers; systemd is told
// again, which is right whichever it remembers.

const tellingSuffix = ".telling"

func (s store) tellingPath(init *nsenter.Process) string {
	return filepath.Join(s.settledDir(), init.Identity()+tellingSuffix)
}

// beginTelling leaves the mark.
func (s store) beginTelling(init *nsenter.Process) error {
	return writeFile(s.settledDir(), init.Identity()+tellingSuffix, nil)
}

// toldOrNot reports whether the mark of a run that did not end stands.
func (s store) toldOrNot(init *nsenter.Process) bool {
	_, err := os.Lstat(s.tellingPath(init))
	return err == nil
}

// endTelling takes the mark away, when it is recorded what systemd knows.
func (s store) endTelling(init *nsenter.Process) error {
	return removeFile(s.tellingPath(init), "mark of a run that told systemd device numbers")
}
