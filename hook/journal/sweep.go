package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

const (
	// writingTime is longer than the program runs.
	writingTime = time.Minute
	// reportTime is how long a report is kept: they lie in memory.
	reportTime = 7 * 24 * time.Hour
)

// Sweep removes the entries about processes that have ended, old reports, and what
// killed runs have not written to the end.
func (s Store) Sweep() {
	for _, folder := range []string{restoresFolder, coversFolder, containersFolder, locksFolder, reportsFolder} {
		dir := filepath.Join(s.dir, folder)
		entries, _ := os.ReadDir(dir) // nothing was ever written there
		for _, e := range entries {
			switch {
			case strings.HasSuffix(e.Name(), temporarySuffix):
				removeOlder(dir, e, writingTime)
			case folder == reportsFolder: // named as the engine pleases
				removeOlder(dir, e, reportTime)
			default:
				removeIfEnded(dir, e.Name())
			}
		}
	}
}

func removeOlder(dir string, e os.DirEntry, age time.Duration) {
	if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > age {
		_ = os.Remove(filepath.Join(dir, e.Name()))
	}
}

// removeIfEnded removes a file if the process has ended that it is named after.
func removeIfEnded(dir, name string) {
	identity, _, _ := strings.Cut(name, ".")
	pid, start, err := nsenter.ParseIdentity(identity)
	if err != nil {
		return // not an entry's name
	}
	p, err := nsenter.OpenIdentity(pid, start)
	if errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(filepath.Join(dir, name))
	} else if err == nil {
		p.Close()
	}
}
