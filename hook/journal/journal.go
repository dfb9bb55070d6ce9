package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Directory is where the journal lies. It does not outlive a boot, as the
// processes that it speaks of do not.
const Directory = "/run/autofs-restore-hook"

// Folders of the journal.
const (
	containersFolder = "containers" // intents and ledgers, by container
	coversFolder     = "covers"     // intents with covers, by container
	restoresFolder   = "restores"   // handovers, by CRIU
	locksFolder      = "locks"
	reportsFolder    = "reports"
)

// reportSuffix is that of a report's file.
const reportSuffix = ".json"

// Store is the directory of the journal.
type Store struct{ dir string }

// NewStore returns the journal in a directory: [Directory] but for tests.
func NewStore(dir string) Store { return Store{dir} }

// ReportPath is the file of a container's report. The name must be a valid file name.
func (s Store) ReportPath(container string) string {
	return filepath.Join(s.dir, reportsFolder, container+reportSuffix)
}

// SaveReport writes a container's report, atomically, readable by root only.
func (s Store) SaveReport(container string, data []byte) error {
	path := s.ReportPath(container)
	return writeFile(filepath.Dir(path), filepath.Base(path), data)
}

// makeFolder makes a folder of the journal, for root only.
func (s Store) makeFolder(name string) (string, error) {
	dir := filepath.Join(s.dir, name)
	return dir, os.MkdirAll(dir, 0o700) //nolint:forbidigo // the host's own /run
}

// temporarySuffix is that of a file that is being written: a run that is killed
// leaves it.
const temporarySuffix = ".tmp"

// writeFile replaces a file of the journal in one step.
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

// removeFile removes a file of the journal, if it is there; what names it in the error.
func removeFile(path, what string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
