package cure

import (
	"context"
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/automount"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// masterSpace is the mount namespace in which a master mounts its triggers.
type masterSpace struct {
	*container.Space
	daemon *owner.Member // the automount daemon; nil if it has ended, or the master is systemd
}

// mainSpace returns the main mount namespace, where systemd mounts.
func (s *Session) mainSpace() masterSpace { return masterSpace{s.container.Main(), nil} }

// spaceOf returns the mount namespace of an automount daemon.
func (s *Session) spaceOf(daemon *owner.Member) masterSpace {
	if id, err := daemon.Namespace("mnt"); err == nil {
		if sp := s.container.Space(id.Inode); sp != nil && sp.Table != nil {
			return masterSpace{sp, daemon}
		}
	}
	return masterSpace{s.container.Main(), daemon}
}

// spaceOfParking returns the mount namespace of the daemon of parking mounts, also if the
// daemon has ended.
func (s *Session) spaceOfParking(p *parking, daemon *owner.Member) masterSpace {
	if daemon != nil && !daemon.Ended() {
		return s.spaceOf(daemon)
	}
	if sp := s.container.Space(p.Namespace); sp != nil && sp.Table != nil {
		return masterSpace{sp, nil}
	}
	return s.mainSpace()
}

// openRoot opens the root of an autofs mount. While it has waiters only its daemon can; then
// the daemon is made to open it.
func (h masterSpace) openRoot(ctx context.Context, path string, device uint64) (*os.File, error) {
	control, err := autofs.OpenControl()
	if err != nil {
		return nil, err
	}
	defer control.Close()
	opened := make(chan *os.File, 1)
	err = h.Process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
		root, err := control.OpenMount(path, device)
		if err == nil {
			opened <- root
		}
		return err
	})
	switch {
	case err == nil:
		return <-opened, nil
	case h.daemon == nil:
		return nil, err
	}
	files, err := automount.OpenBlockedRoots(ctx, h.daemon, []automount.Root{{Path: path, Device: device}})
	if err != nil {
		return nil, err
	}
	return files[0], nil
}

// copyFunc returns a function that copies the autofs mount with a mount point and st_dev.
func (h masterSpace) copyFunc(ctx context.Context, path string, device uint64) func() (*os.File, error) {
	return func() (*os.File, error) {
		root, err := h.openRoot(ctx, path, device)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		copied := make(chan *os.File, 1)
		err = h.Process.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
			tree, err := mounts.Clone(root)
			if err == nil {
				copied <- tree
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		return <-copied, nil
	}
}
