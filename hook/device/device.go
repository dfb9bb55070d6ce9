// Package device takes particular anonymous device numbers.
//
// A file system without a block device gets the lowest number that is free
// (fs/super.c, get_anon_bdev: ida_alloc_range). So a superblock gets a wanted
// number when all lower ones are taken and that one is free at the moment of
// its creation. Fillers take the others: empty superblocks that are never
// mounted anywhere, about 4 KB of kernel memory and 25 µs each, gone with the
// file that stands for them.
//
// That cannot work while another superblock has the number, and it may fail
// when others create superblocks at the same time: the number is always
// checked, and [ErrTaken] is an ordinary answer.
package device

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

// maxFillers bounds the fillers of one pool: beyond that the wanted numbers
// are too high to be worth the memory (16 MB) and time (100 ms).
const maxFillers = 4096

// attempts bounds how often a number is tried for while others create
// superblocks too. One attempt takes about 50 µs.
const attempts = 100

// Pool holds device numbers until they are taken or the pool is closed.
type Pool struct {
	// held are fillers that have a wanted number, others those that have not.
	held   map[uint64]*os.File
	others []*os.File
	limit  uint64 // the highest wanted number
}

// New makes a pool for the wanted numbers (st_dev) that holds nothing yet.
// Numbers of block devices are left out: those cannot be chosen.
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

// Adopt gives the pool a filler that another pool held. The pool closes it.
func (p *Pool) Adopt(filler *os.File) error {
	number, err := numberOf(filler)
	if err != nil {
		filler.Close()
		return err
	}
	p.add(number, filler)
	return nil
}

func (p *Pool) add(number uint64, filler *os.File) {
	if have, wanted := p.held[number]; wanted && have == nil {
		p.held[number] = filler
		return
	}
	p.others = append(p.others, filler)
}

// Fill takes every free number up to the highest wanted one. After it the pool
// holds all wanted numbers that no other superblock has.
func (p *Pool) Fill(ctx context.Context) error {
	if len(p.held) == 0 {
		return nil
	}
	var made []*os.File
	defer func() { loosen(made) }()
	for range maxFillers {
		if ctx.Err() != nil {
			return fmt.Errorf("reserve device numbers: %w", context.Cause(ctx))
		}
		f, err := filler()
		if err != nil {
			return err
		}
		number, err := numberOf(f)
		if err != nil {
			f.Close()
			return err
		}
		if number > p.limit {
			f.Close()
			return nil
		}
		p.add(number, f)
		made = append(made, f)
		if number == p.limit {
			return nil
		}
	}
	return fmt.Errorf("reserve device numbers up to %s: more than %d lower ones are free", text(p.limit), maxFillers)
}

// Trim closes the fillers that have no wanted number.
func (p *Pool) Trim() {
	for _, f := range p.others {
		f.Close()
	}
	p.others = nil
}

// Held returns the fillers that hold wanted numbers, by number. They stay the
// pool's.
func (p *Pool) Held() map[uint64]*os.File {
	held := map[uint64]*os.File{}
	for number, f := range p.held {
		if f != nil {
			held[number] = f
		}
	}
	return held
}

// Close frees all numbers that were not taken.
func (p *Pool) Close() {
	p.Trim()
	for _, f := range p.held {
		if f != nil {
			f.Close()
		}
	}
	p.held = nil
}

// Take makes a superblock with the wanted number: create is called, possibly
// more than once, and the file it returns must lie on the new superblock. A
// superblock with another number is never returned.
func (p *Pool) Take(ctx context.Context, wanted uint64, create func() (*os.File, error)) (*os.File, error) {
	if f := p.held[wanted]; f != nil {
		f.Close() // the number is free when close returns (task work runs before)
		p.held[wanted] = nil
	} else {
		return nil, fmt.Errorf("device number %s: %w", text(wanted), ErrTaken)
	}
	for range attempts {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("device number %s: %w", text(wanted), context.Cause(ctx))
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
			// A lower number was given back meanwhile. This one fills it.
			p.others = append(p.others, f)
		default:
			f.Close() // another process was faster; it may be as quick to give it back
		}
	}
	return nil, fmt.Errorf("device number %s: %w", text(wanted), ErrTaken)
}

// filler makes an empty superblock.
func filler() (*os.File, error) {
	f, err := sys.NewRamfs("placeholder")
	if err != nil {
		return nil, fmt.Errorf("occupy a device number: %w", err)
	}
	return f, nil
}

// loosen makes fillers cheap to close. Each is a mount in a mount namespace of
// its own, and taking that apart waits for all processors
// (synchronize_rcu_expedited in namespace_unlock, fs/namespace.c): 100 µs, four
// times what it takes to make one. So all are moved to one such namespace, which
// is taken apart at once; then nothing but its file holds a filler. Before Linux
// 6.15 detached mounts can be neither copied nor mounted on, and stay as they are.
func loosen(fillers []*os.File) {
	if len(fillers) < 2 {
		return
	}
	parent, err := sys.CloneTree(fillers[0], 0)
	if err != nil {
		return
	}
	defer parent.Close()
	for i, f := range fillers {
		// Not one on the other: those would keep each other.
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

func text(number uint64) string { return fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number)) }
