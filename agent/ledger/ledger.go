// Package ledger remembers which restored processes have been dealt with, so
// that no restore is repaired or counted twice: not by two events about it, not
// after the engine was restarted, and not after the agent was.
//
// A restore is named by the container's first process: its number and start time
// together ("123-4567", [nsenter.Process.Identity]) belong to one process for as
// long as the machine runs, and a process is restored at most once.
package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Ledger is a set of restores. What is done lies on disk, one empty file for
// each, in a folder that ends with the boot; what is under way only in memory,
// so that an agent that was killed begins it again.
type Ledger struct {
	dir string

	mu    sync.Mutex
	taken map[string]bool // true: done
}

// Open reads the ledger in a folder, which is made if it does not exist.
func Open(dir string) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil { //nolint:forbidigo // the host's own /run
		return nil, fmt.Errorf("ledger: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	l := &Ledger{dir: dir, taken: map[string]bool{}}
	for _, e := range entries {
		if _, _, ok := parse(e.Name()); ok {
			l.taken[e.Name()] = true
		}
	}
	return l, nil
}

// Claim takes a restore for the caller, who has to end it with Done or Release.
// It is false if somebody has it or it is done.
func (l *Ledger) Claim(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.taken[key]; known {
		return false
	}
	l.taken[key] = false
	return true
}

// Release gives a restore back, to be claimed again.
func (l *Ledger) Release(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.taken[key] {
		delete(l.taken, key)
	}
}

// Done says that nothing is ever to be done about the restore again. It is so
// for this agent even if an error says that it could not be written down.
func (l *Ledger) Done(key string) error {
	l.mu.Lock()
	l.taken[key] = true
	l.mu.Unlock()
	if _, _, ok := parse(key); !ok {
		return fmt.Errorf("ledger: %q does not name a process", key)
	}
	f, err := os.OpenFile(filepath.Join(l.dir, key), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return f.Close()
}

// Sweep forgets the processes that have ended. It returns how many are left.
func (l *Ledger) Sweep() (int, error) {
	l.mu.Lock()
	keys := make([]string, 0, len(l.taken))
	for key, done := range l.taken {
		if done {
			keys = append(keys, key)
		}
	}
	l.mu.Unlock()
	var errs []error
	for _, key := range keys {
		if alive(key) {
			continue
		}
		if err := os.Remove(filepath.Join(l.dir, key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("ledger: %w", err))
			continue
		}
		l.mu.Lock()
		delete(l.taken, key)
		l.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.taken), errors.Join(errs...)
}

// alive errs on the side of life.
func alive(key string) bool {
	pid, start, ok := parse(key)
	if !ok {
		return false
	}
	p, err := nsenter.OpenIdentity(pid, start)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	p.Close()
	return true
}

func parse(key string) (pid int, start uint64, ok bool) {
	number, ticks, found := strings.Cut(key, "-")
	pid, err := strconv.Atoi(number)
	start, startErr := strconv.ParseUint(ticks, 10, 64)
	return pid, start, found && err == nil && startErr == nil && pid > 0
}
