package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/anondev"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// stepNames are the steps of recreating mounts, by both contestants.
var stepNames = []string{"find mounts and pipes", "hold numbers", "take numbers, create", "swap", "verify"}

// BenchmarkMounts measures the recreation of mounts, step by step, beside a C program
// that makes only the system calls that are needed.
func BenchmarkMounts(b *testing.B) {
	lab.RequireNode(b)
	lean := tool(b, "bench-lean")
	fmt.Print("\n" + machine() + "\nRecreating automounts: microseconds for each of 100, medians. lean: a C program with the necessary\n" +
		"system calls alone, which covers no mount, verifies nothing and leaves each path without a mount for a short time.\n\n")
	const count, rounds = 100, 5
	hook, inLean := make([]series, len(stepNames)), make([]series, len(stepNames))
	for range rounds {
		withHouse(b, lean, count, func(pid int) { addSteps(hook, inProcess(b, pid, count)) })
		withHouse(b, lean, count, func(pid int) { addSteps(inLean, inC(b, lean, pid)) })
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "step\thook\tlean\tratio\t")
	var sums [2]time.Duration
	row := func(name string, a, c time.Duration) {
		ratio := "-"
		if c > 0 {
			ratio = fmt.Sprintf("%.2f", float64(a)/float64(c))
		}
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%s\t\n", name, float64(a.Nanoseconds())/1000/count, float64(c.Nanoseconds())/1000/count, ratio)
	}
	for i, name := range stepNames {
		row(name, hook[i].median(), inLean[i].median())
		sums[0] += hook[i].median()
		sums[1] += inLean[i].median()
	}
	row("all", sums[0], sums[1])
	w.Flush()
}

func addSteps(to []series, took []time.Duration) {
	for i, d := range took {
		to[i].add(d)
	}
}

// withHouse runs f with a process that has automounts in its own mount namespace.
func withHouse(b testing.TB, lean string, count int, f func(pid int)) {
	b.Helper()
	dir := b.TempDir()
	cmd, end := startHelper(b, lean, "house", strconv.Itoa(count), dir)
	defer end()
	f(cmd.Process.Pid)
}

// startHelper starts the C program and waits until it is ready.
func startHelper(b testing.TB, lean string, args ...string) (cmd *exec.Cmd, end func()) {
	b.Helper()
	cmd = exec.Command(lean, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		b.Fatalf("%s %q: %q, %v", lean, args, line, err)
	}
	return cmd, func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		time.Sleep(100 * time.Millisecond) // its mounts are freed a little later
	}
}

// inC makes the C program recreate the mounts.
func inC(b testing.TB, lean string, pid int) []time.Duration {
	b.Helper()
	out, err := exec.Command(lean, "preserve", strconv.Itoa(pid)).CombinedOutput()
	fields := strings.Fields(string(out))
	if err != nil || len(fields) != len(stepNames) {
		b.Fatalf("%v\n%s", err, out)
	}
	took := make([]time.Duration, len(stepNames)) // it verifies nothing
	for i, text := range fields[1:] {
		us, err := strconv.ParseFloat(text, 64)
		if err != nil {
			b.Fatal(err)
		}
		took[i] = time.Duration(us * 1000)
	}
	return took
}

// inProcess recreates the mounts with the program's packages.
func inProcess(b testing.TB, pid, count int) []time.Duration {
	b.Helper()
	ctx := context.Background()
	wanted := lowestFree(b, count)
	var took []time.Duration
	last := time.Now()
	step := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(last))
		last = time.Now()
	}
	p, err := nsenter.Open(pid)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	table, err := mounts.Of(p)
	if err != nil {
		b.Fatal(err)
	}
	pipes, err := master.Pipes(p)
	step(err)
	pool := anondev.New(wanted)
	defer pool.Close()
	err = pool.Fill(ctx)
	pool.Trim()
	step(err)
	var list []*mounts.Replacement
	err = p.InMountNamespace(ctx, func(*nsenter.Thread) error {
		for i, m := range table.Autofs() {
			f, err := pool.Create(ctx, wanted[i], func() (*os.File, error) { return recreate(p, m, pipes) })
			if err != nil {
				return err
			}
			list = append(list, &mounts.Replacement{Path: m.Mountpoint, Old: mounts.DeviceOf(m), New: f, Device: wanted[i]})
		}
		return nil
	})
	step(err)
	spaces := []mounts.Space{{Process: p, Table: table}}
	err = mounts.Replace(ctx, spaces, list, func([]mounts.Place) error { return nil })
	for _, r := range list {
		r.New.Close()
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
	step(err)
	step(checkReplaced(p, list))
	if len(list) != count {
		b.Fatalf("%d mounts, want %d", len(list), count)
	}
	return took
}

// checkReplaced returns an error if a mount was not replaced.
func checkReplaced(p *nsenter.Process, list []*mounts.Replacement) error {
	table, err := mounts.Of(p)
	if err != nil {
		return err
	}
	space := mounts.Space{Process: p, Table: table}
	for _, r := range list {
		if !space.Shows(r.Path, r.Device) || space.Shows(r.Path, r.Old) {
			return fmt.Errorf("%s was not replaced", r.Path)
		}
	}
	return nil
}

// recreate creates a superblock like that of the mount.
func recreate(p *nsenter.Process, m *mounts.Mount, pipes map[uint64]int) (*os.File, error) {
	o, err := autofs.ParseOptions(m.VFSOptions)
	if err != nil {
		return nil, err
	}
	writer, err := p.OpenFileDescriptor(pipes[o.PipeInode], unix.S_IFIFO, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	return autofs.Create(autofs.CreateOptions{
		PipeWriter: writer, ProcessGroup: p.PID(), Type: o.Type, Timeout: o.Timeout,
		MinProto: o.MinProto, MaxProto: o.MaxProto, UID: o.UID, GID: o.GID, Source: m.Source,
	})
}

// lowestFree returns the numbers of the next superblocks.
func lowestFree(b testing.TB, count int) []uint64 {
	b.Helper()
	var numbers []uint64
	for range count {
		fs, err := unix.Fsopen("ramfs", unix.FSOPEN_CLOEXEC)
		if err == nil {
			err = unix.FsconfigCreate(fs)
		}
		fd := -1
		if err == nil {
			fd, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
		}
		var st unix.Stat_t
		if err == nil {
			err = unix.Fstat(fd, &st)
		}
		if err != nil {
			b.Fatal(err)
		}
		unix.Close(fs)
		defer unix.Close(fd)
		numbers = append(numbers, st.Dev)
	}
	return numbers
}
