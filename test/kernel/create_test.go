//go:build linux

package kernel

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// TestCreate compares the options with those in mountinfo.
func TestCreate(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*autofs.CreateOptions)
		want   func(*autofs.Options)
	}{
		"plain": {nil, func(*autofs.Options) {}},
		"everything": {
			func(o *autofs.CreateOptions) {
				o.ProcessGroup, o.Type, o.Timeout = 1, autofs.Indirect, 90*time.Second
				o.MinProto, o.UID, o.GID, o.StrictExpire, o.Ignore = 3, 1000, 100, true, true
			},
			func(o *autofs.Options) {
				o.ProcessGroup, o.Type, o.Timeout = 1, autofs.Indirect, 90*time.Second
				o.MinProto, o.UID, o.GID, o.StrictExpire, o.Ignore = 3, 1000, 100, true, true
			},
		},
		"offset": {
			func(o *autofs.CreateOptions) { o.Type, o.Timeout = autofs.Offset, time.Millisecond },
			func(o *autofs.Options) { o.Type, o.Timeout = autofs.Offset, time.Second },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScratch(t, test.change)
			closeOnExec(t, s.mount)
			source, _ := mountinfo(t, s.path)
			got := options(t, s.path)
			want := autofs.Options{
				FD: got.FD, PipeInode: s.writerNumber, HasPipe: true, ProcessGroup: unix.Getpgrp(),
				MinProto: 5, MaxProto: 5, UID: -1, GID: -1,
			}
			test.want(&want)
			if got != want || source != "kernel-test" || got.Catatonic() {
				t.Errorf("source %s\n got %+v\nwant %+v", source, got, want)
			}
			if st, err := sys.StatFS(s.mount); err != nil || st.Type != unix.AUTOFS_SUPER_MAGIC {
				t.Errorf("not an autofs: %v", err)
			}
			if err := autofs.SetTimeout(s.root, 7*time.Second); err != nil {
				t.Fatal(err)
			}
			if got := options(t, s.path).Timeout; got != 7*time.Second {
				t.Errorf("timeout %v after setting 7s", got)
			}
		})
	}
}

// TestCreateErrors: each error names the refused option; no descriptor is left.
func TestCreateErrors(t *testing.T) {
	requireAutofs(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	read.Fd() // out of the Go runtime's poller, which opens descriptors of its own
	write.Fd()
	before := descriptors(t)

	for name, o := range map[string]autofs.CreateOptions{
		"not a pipe":       {PipeWriter: null},
		"no process group": {PipeWriter: write, ProcessGroup: 1<<22 + 1},
		"protocol":         {PipeWriter: write, MinProto: 9},
		"large uid":        {PipeWriter: write, UID: 1 << 40},
	} {
		_, err := autofs.Create(o)
		var parameter *sys.MountError
		if !errors.As(err, &parameter) || parameter.Parameter == "" || errors.Unwrap(parameter) == nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		t.Logf("%s: %v", name, err)
	}
	for name, o := range map[string]autofs.CreateOptions{
		"no pipe":          {},
		"no such type":     {PipeWriter: write, Type: 3},
		"negative group":   {PipeWriter: write, ProcessGroup: -1},
		"negative timeout": {PipeWriter: write, Timeout: -1},
	} {
		if _, err := autofs.Create(o); err == nil || !strings.HasPrefix(err.Error(), "create autofs: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%s descriptors became %s", before, after)
	}
}
