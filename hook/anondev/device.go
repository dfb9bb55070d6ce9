// Package anondev creates superblocks with chosen anonymous device numbers.
//
// A file system without a block device gets the lowest free number (fs/super.c,
// get_anon_bdev: ida_alloc_range). So a superblock gets a wanted number if all lower ones
// are taken and that one is free when it is created. Placeholders take the others: empty
// superblocks that are never mounted, about 4 KB of kernel memory and 25 µs each, which
// exist as long as their file is open.
//
// That fails while another superblock has the number, and may fail if other processes
// create superblocks at the same time: the number is always checked, and callers must
// expect [ErrTaken].
package anondev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// ErrTaken means that another superblock has the wanted number.
var ErrTaken = errors.New("the device number belongs to another file system")

// maxPlaceholders bounds the placeholders of one pool: more are not worth the memory
// (16 MB) and time (100 ms).
const maxPlaceholders = 4096

// attempts bounds the attempts at a number while other processes create superblocks too.
// One takes about 50 µs.
const attempts = 100

// Pool holds device numbers until they are taken or the pool is closed.
type Pool struct {
	// held are placeholders with a wanted number, nil for one that is not held; others
	// are all other placeholders.
	held   map[uint64]*os.File
	others []*os.File
	limit  uint64 // the highest wanted number
}

// New makes an empty pool for the wanted numbers (st_dev). It ignores numbers of block
// devices, which cannot be chosen.
func New(wanted []uint64) *Pool {
	p := &Pool{held: map[uint64]*os.File{}}
	for _, w := range wanted {
		if unix.Major(w) == 0 {
			p.held[w] = nil
			p.limit = max(p.limit, w)
		}
	}
	return p
}

// Adopt adds a placeholder of another pool. The pool closes it.
func (p *Pool) Adopt(placeholder *os.File) error {
	number, err := numberOf(placeholder)
	if err != nil {
		placeholder.Close()
		return err
	}
	p.add(number, placeholder)
	return nil
}

func (p *Pool) add(number uint64, placeholder *os.File) {
	if have, wanted := p.held[number]; wanted && have == nil {
		p.held[number] = placeholder
		return
	}
	p.others = append(p.others, placeholder)
}

// Missing returns the wanted numbers that the pool does not hold.
func (p *Pool) Missing() []uint64 {
	var missing []uint64
	for number, f := range p.held {
		if f == nil {
			missing = append(missing, number)
		}
	}
	return missing
}

// Taken is the error that another superblock has the number.
func Taken(number uint64) error {
	return fmt.Errorf("device number %s: %w", formatDevice(number), ErrTaken)
}

// Fill takes every free number up to the highest wanted one. The pool then holds all
// wanted numbers that no other superblock has.
//
// The number of a superblock is known only if it has a mount, which costs more than the
// superblock. So while the next wanted number is far, Fill creates batches of superblocks
// without a mount. The number of the placeholder after a batch shows whether one of the
// batch may have a wanted number: then all of it get a mount.
func (p *Pool) Fill(ctx context.Context) error {
	if len(p.held) == 0 {
		return nil
	}
	var mounted []*os.File
	var unknown []*sys.FSContext // the batch since the last placeholder with a known number
	var last uint64              // that number
	defer func() {
		p.keep(unknown)
		detachTogether(mounted)
	}()
	for created := 0; created < maxPlaceholders; created++ {
		if ctx.Err() != nil {
			return fmt.Errorf("reserve device numbers: %w", context.Cause(ctx))
		}
		f, err := newPlaceholder()
		if err != nil {
			return err
		}
		number, err := numberOf(f)
		if err != nil {
			f.Close()
			return err
		}
		if number < last || p.wants(last, number) {
			mounted = append(mounted, p.identify(unknown)...)
		} else {
			p.keep(unknown)
		}
		unknown, last = nil, number
		if number > p.limit {
			f.Close()
			return nil
		}
		p.add(number, f)
		mounted = append(mounted, f)
		if number == p.limit {
			return nil
		}
		if next := unix.Mkdev(0, unix.Minor(last)+batch); next < p.limit && !p.wants(last, next) {
			if unknown, err = newContexts(batch); err != nil {
				return err
			}
			created += batch
		}
	}
	return fmt.Errorf("reserve device numbers up to %s: more than %d lower ones are free", formatDevice(p.limit), maxPlaceholders)
}

// batch is how many superblocks Fill creates without a mount before it looks at a number.
const batch = 64

// wants reports whether a wanted number above from and up to to is not held.
func (p *Pool) wants(from, to uint64) bool {
	for number, f := range p.held {
		if f == nil && number > from && number <= to {
			return true
		}
	}
	return false
}

// keep adds superblocks without a mount, which have no wanted number.
func (p *Pool) keep(list []*sys.FSContext) {
	for _, c := range list {
		p.others = append(p.others, c.File())
	}
}

// identify adds superblocks of which one may have a wanted number, and returns their
// mounts.
func (p *Pool) identify(list []*sys.FSContext) []*os.File {
	var mounted []*os.File
	for _, c := range list {
		root, err := c.Root("placeholder")
		if err != nil {
			p.others = append(p.others, c.File())
			continue
		}
		c.Close()
		if number, err := numberOf(root); err == nil {
			p.add(number, root)
		} else {
			p.others = append(p.others, root)
		}
		mounted = append(mounted, root)
	}
	return mounted
}

// newContexts creates superblocks without a mount.
func newContexts(count int) ([]*sys.FSContext, error) {
	var list []*sys.FSContext
	for range count {
		c, err := sys.OpenFSContext("ramfs")
		if err == nil {
			list = append(list, c)
			err = c.Create()
		}
		if err != nil {
			for _, c := range list {
				c.Close()
			}
			return nil, fmt.Errorf("occupy a device number: %w", err)
		}
	}
	return list, nil
}

// worthKeeping is how many placeholders take longer to create again, 4 ms, than a process
// that keeps them takes to start.
const worthKeeping = 256

// TakeOthers returns the placeholders without a wanted number if they are many, so that a
// later pool need not create them again. The caller closes them.
func (p *Pool) TakeOthers() []*os.File {
	if len(p.others) < worthKeeping {
		return nil
	}
	list := p.others
	p.others = nil
	return list
}

// Trim closes the placeholders without a wanted number.
func (p *Pool) Trim() {
	for _, f := range p.others {
		f.Close()
	}
	p.others = nil
}

// Placeholders returns the placeholders of wanted numbers, by number. The pool still owns them.
func (p *Pool) Placeholders() map[uint64]*os.File {
	held := map[uint64]*os.File{}
	for number, f := range p.held {
		if f != nil {
			held[number] = f
		}
	}
	return held
}

// Close frees all numbers that the pool holds.
func (p *Pool) Close() {
	p.Trim()
	for _, f := range p.held {
		if f != nil {
			f.Close()
		}
	}
	p.held = nil
}

// Create creates a superblock with the wanted number. It calls create, possibly more than
// once, which must return a file on a new superblock, and never returns a superblock with
// another number.
func (p *Pool) Create(ctx context.Context, wanted uint64, create func() (*os.File, error)) (*os.File, error) {
	if f := p.held[wanted]; f != nil {
		f.Close() // the number is free when close returns (task work runs before)
		p.held[wanted] = nil
	} else {
		return nil, Taken(wanted)
	}
	for range attempts {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("device number %s: %w", formatDevice(wanted), context.Cause(ctx))
		}
		f, err := create()
		if err != nil {
			return nil, err
		}
		number, err := numberOf(f)
		switch {
		case err != nil:
			f.Close()
			return nil, err
		case number == wanted:
			return f, nil
		case number < wanted:
			// A lower number was freed meanwhile. This superblock occupies it.
			p.others = append(p.others, f)
		default:
			f.Close() // another process took the number, and may free it soon
		}
	}
	return nil, Taken(wanted)
}

// newPlaceholder creates an empty superblock with a mount.
func newPlaceholder() (*os.File, error) {
	f, err := sys.NewRamfs("placeholder")
	if err != nil {
		return nil, fmt.Errorf("occupy a device number: %w", err)
	}
	return f, nil
}

// detachTogether makes placeholders cheap to close. Each is a mount in a mount namespace of
// its own, whose destruction waits for all processors (synchronize_rcu_expedited in
// namespace_unlock, fs/namespace.c): 100 µs, four times as long as its creation. So all
// are moved to one such namespace, which is then destroyed at once; only its file keeps a
// placeholder after that. Before Linux 6.15 detached mounts can be neither copied nor
// mounted on, and are left unchanged.
func detachTogether(list []*os.File) {
	if len(list) < 2 {
		return
	}
	parent, err := sys.CloneTree(list[0], 0)
	if err != nil {
		return
	}
	defer parent.Close()
	for i, f := range list {
		// Not one on another: mounts keep the mounts beneath them.
		name := strconv.Itoa(i)
		if sys.MkdirAt(parent, name, 0o700) != nil || sys.MoveMount(f, parent, name) != nil {
			return
		}
	}
}

func numberOf(f *os.File) (uint64, error) {
	st, err := sys.Stat(f)
	if err != nil {
		return 0, fmt.Errorf("device number of a new file system: %w", err)
	}
	return st.Dev, nil
}

func formatDevice(number uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number))
}
