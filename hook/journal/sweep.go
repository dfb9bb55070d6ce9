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
	// writeTime is the age after which a temporary file was left by a killed run. It is
	// longer than the program runs.
	writeTime = time.Minute
	// reportTime is how long a report is kept.
	reportTime = 7 * 24 * time.Hour
)

// Sweep removes entries about processes that have ended, reports older than 7 days, and
// temporary files of killed runs. It ignores errors.
func (s Store) Sweep() {
	for _, folder := range []string{restoresFolder, coversFolder, containersFolder, locksFolder, placesFolder, reportsFolder} {
		dir := filepath.Join(s.dir, folder)
		entries, _ := os.ReadDir(dir) // the folder may not exist yet
		for _, e := range entries {
			switch {
			case strings.HasSuffix(e.Name(), temporarySuffix):
				removeOlder(dir, e, writeTime)
			case folder == reportsFolder: // named after containers, not processes
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

// removeIfEnded removes a file if the process in its name has ended.
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
