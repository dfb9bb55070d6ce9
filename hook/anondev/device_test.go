package anondev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"golang.org/x/sys/unix"
)

// distance is how far above the next free number the tests want theirs: others
// on this machine, who always get the lowest, hardly reach it.
const distance = 40

func create() (*os.File, error) { return newPlaceholder() }

// next is the number that a new superblock gets now.
func next(t testing.TB) uint64 {
	t.Helper()
	f, err := newPlaceholder()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return number(t, f)
}

func number(t testing.TB, f *os.File) uint64 {
	t.Helper()
	n, err := numberOf(f)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// above adds to the minor number; the bits of st_dev are not in order.
func above(n uint64, more int) uint64 {
	return unix.Mkdev(0, unix.Minor(n)+uint32(more))
}

// reserve fills a pool with count free numbers, from distance above
// the next free one on.
func reserve(t testing.TB, count int) (*Pool, []uint64) {
	t.Helper()
	testenv.RequireRoot(t)
	end := time.Now().Add(testenv.Patience)
	for more := distance; more < 20*distance || time.Now().Before(end); more = more%(20*distance) + distance/2 {
		first := above(next(t), more)
		var wanted []uint64
		for i := range count {
			wanted = append(wanted, above(first, 2*i))
		}
		p := New(wanted)
		if err := p.Fill(context.Background()); err != nil {
			t.Fatal(err)
		}
		if len(p.Placeholders()) == count {
			t.Cleanup(p.Close)
			return p, wanted
		}
		p.Close()
	}
	t.Fatal("no free numbers")
	return nil, nil
}

// undisturbed repeats a test that lost a number to others on this machine. A laboratory
// takes and frees many numbers at once, but not all the time.
func undisturbed(t *testing.T, test func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = test(); err == nil {
			return
		}
		if !errors.Is(err, ErrTaken) {
			t.Fatal(err)
		}
		t.Logf("disturbed: %v", err)
	}
	t.Errorf("disturbed each time: %v", err)
}

// freed waits until closed placeholders are gone. Their numbers may be taken by others.
func freed(condition func() bool) error {
	for end := time.Now().Add(testenv.Patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if condition() {
			return nil
		}
	}
	return fmt.Errorf("numbers of a closed pool are not free within %v: %w", testenv.Patience, ErrTaken)
}

// TestTake: each wanted number, and no other, in any order.
func TestTake(t *testing.T) { undisturbed(t, func() error { return takeAll(t) }) }

func takeAll(t *testing.T) error {
	p, wanted := reserve(t, 5)
	held := p.Placeholders()
	for _, w := range wanted {
		f := held[w]
		if f == nil || number(t, f) != w {
			t.Errorf("number %s is held by %v", formatDevice(w), f)
		}
	}
	if len(held) != len(wanted) {
		t.Errorf("%d numbers are held, %d wanted", len(held), len(wanted))
	}
	for _, i := range []int{4, 0, 2, 1, 3} {
		f, err := p.Create(context.Background(), wanted[i], create)
		if err != nil {
			return err
		}
		defer f.Close()
		if n := number(t, f); n != wanted[i] {
			t.Errorf("got %s, wanted %s", formatDevice(n), formatDevice(wanted[i]))
		}
		if _, err := p.Create(context.Background(), wanted[i], create); !errors.Is(err, ErrTaken) {
			t.Errorf("%s a second time: %v", formatDevice(wanted[i]), err)
		}
	}
	if len(p.Placeholders()) != 0 {
		t.Errorf("still held: %v", p.Placeholders())
	}
	return nil
}

// TestTaken: a number that belongs to another superblock is not taken, and create is
// not even called.
func TestTaken(t *testing.T) { undisturbed(t, func() error { return taken(t) }) }

func taken(t *testing.T) error {
	testenv.RequireRoot(t)
	other, err := newPlaceholder()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	taken := number(t, other)
	scout, wanted := reserve(t, 1)
	scout.Close()
	free := wanted[0]
	p := New([]uint64{taken, free})
	defer p.Close()
	if err := p.Fill(context.Background()); err != nil {
		t.Fatal(err)
	}
	never := func() (*os.File, error) { t.Error("create was called"); return nil, io.EOF }
	for name, n := range map[string]uint64{"taken": taken, "not wanted": above(free, 1), "of a block device": unix.Mkdev(8, 1)} {
		if f, err := p.Create(context.Background(), n, never); !errors.Is(err, ErrTaken) || f != nil {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	f, err := p.Create(context.Background(), free, create)
	if err != nil {
		return err
	}
	return f.Close()
}

// TestTakenAtTheLastMoment: another process gets the number while it is free, and keeps
// it. No other number is returned instead.
func TestTakenAtTheLastMoment(t *testing.T) { undisturbed(t, func() error { return takenAtLast(t) }) }

func takenAtLast(t *testing.T) error {
	p, wanted := reserve(t, 1)
	var thief *os.File
	f, err := p.Create(context.Background(), wanted[0], func() (f *os.File, err error) {
		if thief == nil {
			if thief, err = newPlaceholder(); err != nil {
				return nil, err
			}
		}
		return newPlaceholder()
	})
	if thief == nil {
		return err // it was not free at all
	}
	defer thief.Close()
	if n := number(t, thief); n != wanted[0] {
		f.Close()
		return fmt.Errorf("the thief got %s instead of %s: %w", formatDevice(n), formatDevice(wanted[0]), ErrTaken)
	}
	if !errors.Is(err, ErrTaken) || f != nil {
		t.Errorf("%v, %v", f, err)
	}
	return nil
}

// TestGivenBack: another process frees a lower number, or the wanted one, meanwhile.
func TestGivenBack(t *testing.T) { undisturbed(t, func() error { return givenBack(t) }) }

func givenBack(t *testing.T) error {
	p, wanted := reserve(t, 1)
	var thief, lower *os.File
	calls := 0
	f, err := p.Create(context.Background(), wanted[0], func() (*os.File, error) {
		var err error
		switch calls++; calls {
		case 1:
			if thief, err = newPlaceholder(); err != nil {
				return nil, err
			}
			lower, p.others = p.others[len(p.others)-1], p.others[:len(p.others)-1]
		case 3:
			lower.Close()
		case 4:
			thief.Close()
		}
		return newPlaceholder()
	})
	if err != nil {
		return err
	}
	defer f.Close()
	if n := number(t, f); n != wanted[0] || calls < 4 {
		t.Errorf("got %s after %d tries, wanted %s", formatDevice(n), calls, formatDevice(wanted[0]))
	}
	return nil
}

func TestCreateFails(t *testing.T) {
	p, wanted := reserve(t, 2)
	want := errors.New("no superblock today")
	if _, err := p.Create(context.Background(), wanted[0], func() (*os.File, error) { return nil, want }); !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(want)
	if _, err := p.Create(ctx, wanted[1], create); !errors.Is(err, want) {
		t.Errorf("after the end: %v", err)
	}
	if err := New([]uint64{above(wanted[1], 1000)}).Fill(ctx); !errors.Is(err, want) {
		t.Errorf("Fill after the end: %v", err)
	}
}

// TestAdopt hands placeholders from one pool to another, as from one moment of a
// restore to the next.
func TestAdopt(t *testing.T) { undisturbed(t, func() error { return adopt(t) }) }

func adopt(t *testing.T) error {
	first, wanted := reserve(t, 3)
	first.Trim()
	second := New(wanted[:2])
	defer second.Close()
	for _, f := range first.Placeholders() {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Adopt(os.NewFile(uintptr(fd), "copy")); err != nil {
			t.Fatal(err)
		}
	}
	first.Close()
	if len(second.Placeholders()) != 2 || len(second.others) != 1 {
		t.Fatalf("held %v, others %v", second.Placeholders(), second.others)
	}
	if err := second.Fill(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, w := range wanted[:2] {
		f, err := second.Create(context.Background(), w, create)
		if err != nil {
			return err
		}
		defer f.Close()
		if number(t, f) != w {
			t.Errorf("got %s, wanted %s", formatDevice(number(t, f)), formatDevice(w))
		}
	}
	closed, err := newPlaceholder()
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if err := second.Adopt(closed); err == nil {
		t.Error("a closed file was adopted")
	}
	return nil
}

// TestNothingWanted makes no superblock at all.
func TestNothingWanted(t *testing.T) {
	for _, wanted := range [][]uint64{nil, {unix.Mkdev(8, 1), unix.Mkdev(254, 0)}} {
		p := New(wanted)
		if err := p.Fill(context.Background()); err != nil || len(p.others)+len(p.Placeholders()) != 0 {
			t.Errorf("%v: %v, held %v", wanted, err, p.Placeholders())
		}
		p.Close()
	}
}
