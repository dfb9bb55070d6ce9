package restores

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// claims are the restores that are under way or have been dealt with, so that each
// restore is repaired and counted once: also with several events, and after a restart of
// the engine or of the agent.
//
// A restore is named by the container's first process: its number and start time
// together ("123-4567", [nsenter.Process.Identity]) belong to one process until
// the next boot, and a process is restored at most once.
//
// What is done is on disk, one empty file for each restore, in a folder that ends
// with the boot. What is under way is in memory only: after a kill the next agent
// starts it again.
type claims struct {
	dir string

	mu    sync.Mutex
	taken map[string]bool // true: done
}

// openClaims reads the claims in a folder, which is created if it does not exist.
func openClaims(dir string) (*claims, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil { //nolint:forbidigo // the host's own /run
		return nil, fmt.Errorf("claims of restores: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("claims of restores: %w", err)
	}
	c := &claims{dir: dir, taken: map[string]bool{}}
	for _, e := range entries {
		if _, _, err := nsenter.ParseIdentity(e.Name()); err == nil {
			c.taken[e.Name()] = true
		}
	}
	return c, nil
}

// claim takes a restore for the caller, which ends it with done or release. It is
// false if the restore is claimed already, or done.
func (c *claims) claim(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.taken[key]; known {
		return false
	}
	c.taken[key] = false
	return true
}

// release returns a restore, to be claimed again.
func (c *claims) release(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.taken[key] {
		delete(c.taken, key)
	}
}

// done records that a restore has been dealt with. For this agent it is done even
// if it could not be written to disk, which the error says.
func (c *claims) done(key string) error {
	c.mu.Lock()
	c.taken[key] = true
	c.mu.Unlock()
	if _, _, err := nsenter.ParseIdentity(key); err != nil {
		return fmt.Errorf("claims of restores: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(c.dir, key), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("claims of restores: %w", err)
	}
	return f.Close()
}

// sweep forgets the processes that have ended. It returns how many are left.
func (c *claims) sweep() (int, error) {
	c.mu.Lock()
	keys := make([]string, 0, len(c.taken))
	for key, done := range c.taken {
		if done {
			keys = append(keys, key)
		}
	}
	c.mu.Unlock()
	var errs []error
	for _, key := range keys {
		if alive(key) {
			continue
		}
		if err := os.Remove(filepath.Join(c.dir, key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("claims of restores: %w", err))
			continue
		}
		c.mu.Lock()
		delete(c.taken, key)
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.taken), errors.Join(errs...)
}

// alive errs on the side of life.
func alive(key string) bool {
	pid, start, err := nsenter.ParseIdentity(key)
	if err != nil {
		return false
	}
	p, err := nsenter.OpenIdentity(pid, start)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	p.Close()
	return true
}
