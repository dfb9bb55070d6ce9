package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Directory is the directory of the journal. It is in memory and ends with the boot, like
// the processes that the entries are about.
const Directory = "/run/autofs-restore-hook"

// Folders of the journal.
const (
	containersFolder = "containers" // intents and ledgers, by container
	coversFolder     = "covers"     // entries of saved covers, by container
	restoresFolder   = "restores"   // handovers, by CRIU process
	locksFolder      = "locks"
	placesFolder     = "places" // restores in progress, by CRIU process
	reportsFolder    = "reports"
)

// reportSuffix is the suffix of a report's file name.
const reportSuffix = ".json"

// Store is the journal in a directory.
type Store struct{ dir string }

// NewStore returns the journal in a directory: [Directory], except in tests.
func NewStore(dir string) Store { return Store{dir} }

// ReportPath returns the path of a container's report. container must be a valid file
// name.
func (s Store) ReportPath(container string) string {
	return filepath.Join(s.dir, reportsFolder, container+reportSuffix)
}

// SaveReport writes a container's report atomically, with mode 0600.
func (s Store) SaveReport(container string, data []byte) error {
	path := s.ReportPath(container)
	return writeFile(filepath.Dir(path), filepath.Base(path), data)
}

// makeFolder creates a folder of the journal with mode 0700, and returns its path.
func (s Store) makeFolder(name string) (string, error) {
	dir := filepath.Join(s.dir, name)
	return dir, os.MkdirAll(dir, 0o700) //nolint:forbidigo // the host's own /run
}

// temporarySuffix is the suffix of files that are being written. A run that is killed
// leaves them behind.
const temporarySuffix = ".tmp"

// writeFile writes or replaces a file of the journal atomically, with mode 0600.
func writeFile(dir, name string, data []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil { //nolint:forbidigo // the host's own /run
		return fmt.Errorf("directory for %s: %w", name, err)
	}
	path := filepath.Join(dir, name)
	temporary := fmt.Sprintf("%s.%d.%d%s", path, os.Getpid(), time.Now().UnixNano(), temporarySuffix)
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = os.Remove(temporary)
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
