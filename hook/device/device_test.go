package device

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// distance is how far above the next free number the tests want theirs: others
// on this machine, who always get the lowest, hardly reach it.
const distance = 40

func create() (*os.File, error) { return filler() }

// next is the number that a new superblock gets now.
func next(t testing.TB) uint64 {
	t.Helper()
	f, err := filler()
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

// reserve fills a pool with count numbers from distance above the next on.
func reserve(t testing.TB, count int) (*Pool, []uint64) {
	t.Helper()
	requireRoot(t)
	first := above(next(t), distance)
	var wanted []uint64
	for i := range count {
		wanted = append(wanted, above(first, 2*i))
	}
	p := New(wanted)
	t.Cleanup(p.Close)
	if err := p.Fill(context.Background()); err != nil {
		t.Fatal(err)
	}
	return p, wanted
}

// TestTake: each wanted number, and no other, in any order.
func TestTake(t *testing.T) {
	p, wanted := reserve(t, 5)
	held := p.Held()
	for _, w := range wanted {
		f := held[w]
		if f == nil || number(t, f) != w {
			t.Errorf("number %s is held by %v", text(w), f)
		}
	}
	if len(held) != len(wanted) {
		t.Errorf("%d numbers are held, %d wanted", len(held), len(wanted))
	}
	for _, i := range []int{4, 0, 2, 1, 3} {
		f, err := p.Take(context.Background(), wanted[i], create)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if n := number(t, f); n != wanted[i] {
			t.Errorf("got %s, wanted %s", text(n), text(wanted[i]))
		}
		if _, err := p.Take(context.Background(), wanted[i], create); !errors.Is(err, ErrTaken) {
			t.Errorf("%s a second time: %v", text(wanted[i]), err)
		}
	}
	if len(p.Held()) != 0 {
		t.Errorf("still held: %v", p.Held())
	}
}

// TestTaken: a number that belongs to somebody else is not had, and create is
// not even called.
func TestTaken(t *testing.T) {
	requireRoot(t)
	somebody, err := filler()
	if err != nil {
		t.Fatal(err)
	}
	defer somebody.Close()
	taken := number(t, somebody)
	free := above(taken, distance)
	p := New([]uint64{taken, free})
	defer p.Close()
	if err := p.Fill(context.Background()); err != nil {
		t.Fatal(err)
	}
	never := func() (*os.File, error) { t.Error("create was called"); return nil, io.EOF }
	for name, n := range map[string]uint64{"taken": taken, "not wanted": above(free, 1), "of a block device": unix.Mkdev(8, 1)} {
		if f, err := p.Take(context.Background(), n, never); !errors.Is(err, ErrTaken) || f != nil {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
	f, err := p.Take(context.Background(), free, create)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestTakenAtTheLastMoment: somebody gets the number while it is free, and keeps
// it. No other number is returned instead.
func TestTakenAtTheLastMoment(t *testing.T) {
	p, wanted := reserve(t, 1)
	var thief *os.File
	defer func() { thief.Close() }()
	f, err := p.Take(context.Background(), wanted[0], func() (f *os.File, err error) {
		if thief == nil {
			if thief, err = filler(); err != nil {
				return nil, err
			}
		}
		return filler()
	})
	if number(t, thief) != wanted[0] {
		t.Skip("skipped: others took numbers at the same time")
	}
	if !errors.Is(err, ErrTaken) || f != nil {
		t.Errorf("%v, %v", f, err)
	}
}

// TestGivenBack: somebody frees a lower number, or the wanted one, meanwhile.
func TestGivenBack(t *testing.T) {
	p, wanted := reserve(t, 1)
	var thief, lower *os.File
	calls := 0
	f, err := p.Take(context.Background(), wanted[0], func() (*os.File, error) {
		var err error
		switch calls++; calls {
		case 1:
			if thief, err = filler(); err != nil {
				return nil, err
			}
			lower, p.others = p.others[len(p.others)-1], p.others[:len(p.others)-1]
		case 3:
			lower.Close()
		case 4:
			thief.Close()
		}
		return filler()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n := number(t, f); n != wanted[0] || calls < 4 {
		t.Errorf("got %s after %d tries, wanted %s", text(n), calls, text(wanted[0]))
	}
}

func TestCreateFails(t *testing.T) {
	p, wanted := reserve(t, 2)
	want := errors.New("no superblock today")
	if _, err := p.Take(context.Background(), wanted[0], func() (*os.File, error) { return nil, want }); !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(want)
	if _, err := p.Take(ctx, wanted[1], create); !errors.Is(err, want) {
		t.Errorf("after the end: %v", err)
	}
	if err := New([]uint64{above(wanted[1], 1000)}).Fill(ctx); !errors.Is(err, want) {
		t.Errorf("Fill after the end: %v", err)
	}
}

// TestAdopt hands fillers from one pool to another, as from one moment of a
// restore to the next.
func TestAdopt(t *testing.T) {
	first, wanted := reserve(t, 3)
	first.Trim()
	second := New(wanted[:2])
	defer second.Close()
	for _, f := range first.Held() {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Adopt(os.NewFile(uintptr(fd), "copy")); err != nil {
			t.Fatal(err)
		}
	}
	first.Close()
	if len(second.Held()) != 2 || len(second.others) != 1 {
		t.Fatalf("held %v, others %v", second.Held(), second.others)
	}
	if err := second.Fill(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, w := range wanted[:2] {
		f, err := second.Take(context.Background(), w, create)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if number(t, f) != w {
			t.Errorf("got %s, wanted %s", text(number(t, f)), text(w))
		}
	}
	closed, err := filler()
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if err := second.Adopt(closed); err == nil {
		t.Error("a closed file was adopted")
	}
}

// TestNothingWanted makes no superblock at all.
func TestNothingWanted(t *testing.T) {
	for _, wanted := range [][]uint64{nil, {unix.Mkdev(8, 1), unix.Mkdev(254, 0)}} {
		p := New(wanted)
		if err := p.Fill(context.Background()); err != nil || len(p.others)+len(p.Held()) != 0 {
			t.Errorf("%v: %v, held %v", wanted, err, p.Held())
		}
		p.Close()
	}
}

// TestTooHigh: a number that costs too many fillers is refused, and they go.
func TestTooHigh(t *testing.T) {
	requireRoot(t)
	before := next(t)
	p := New([]uint64{unix.Mkdev(0, 1<<20-1)})
	err := p.Fill(context.Background())
	if err == nil || len(p.others) != maxFillers {
		t.Errorf("%v with %d fillers", err, len(p.others))
	}
	p.Close()
	eventually(t, "the numbers are free again", func() bool { return next(t) <= above(before, distance) })
}

// TestClosed: what the pool held is free, and the lowest number as before.
func TestClosed(t *testing.T) {
	p, wanted := reserve(t, 3)
	p.Close()
	p.Close()
	again := New(wanted)
	defer again.Close()
	eventually(t, "the numbers are free again", func() bool {
		if err := again.Fill(context.Background()); err != nil {
			t.Fatal(err)
		}
		again.Trim()
		return len(again.Held()) == len(wanted)
	})
}
