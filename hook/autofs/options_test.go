//go:build linux

package autofs

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestParseOptions(t *testing.T) {
	base := Options{FD: 9, ProcessGroup: 1, MinProto: 5, MaxProto: 5, UID: -1, GID: -1}
	with := func(change func(*Options)) Options { o := base; change(&o); return o }
	for name, test := range map[string]struct {
		super     string
		want      Options
		catatonic bool
	}{
		"systemd": {
			"rw,fd=29,pgrp=1,timeout=0,minproto=5,maxproto=5,direct,pipe_ino=1204",
			with(func(o *Options) { o.FD, o.PipeInode, o.HasPipe = 29, 1204, true }), false,
		},
		"automount indirect": {
			"rw,fd=9,pgrp=1,timeout=300,minproto=5,maxproto=5,indirect,strictexpire,pipe_ino=7",
			with(func(o *Options) {
				o.Timeout, o.Type, o.StrictExpire, o.PipeInode, o.HasPipe = 5*time.Minute, Indirect, true, 7, true
			}), false,
		},
		"owner, ignore": {
			"rw,fd=9,uid=1000,gid=4294967294,pgrp=1,timeout=0,minproto=3,maxproto=5,offset,ignore",
			with(func(o *Options) { o.UID, o.GID, o.MinProto, o.Type, o.Ignore = 1000, 4294967294, 3, Offset, true }), false,
		},
		"catatonic": {
			"rw,fd=-1,pgrp=1,timeout=0,minproto=5,maxproto=5,direct,pipe_ino=-1",
			with(func(o *Options) { o.FD = -1 }), true,
		},
		"caught while turning catatonic": {
			"rw,fd=9,pgrp=1,timeout=0,minproto=5,maxproto=5,direct,pipe_ino=-1",
			with(func(o *Options) { o.FD = -1 }), true,
		},
		"the same, other order": {
			"pipe_ino=-1,fd=9,pgrp=1,timeout=0,minproto=5,maxproto=5,direct",
			with(func(o *Options) { o.FD = -1 }), true,
		},
		"no pipe shown": {"rw,fd=9,pgrp=1,timeout=0,minproto=5,maxproto=5,direct", base, false},
		"words to come": {"ro,fd=9,new,pgrp=1,timeout=0,minproto=5,maxproto=5,direct,new2=x,new3=,=,", base, false},
		"other pid namespace": {
			"rw,fd=9,pgrp=0,timeout=0,minproto=5,maxproto=5,direct",
			with(func(o *Options) { o.ProcessGroup = 0 }), false,
		},
		"endless timeout": {
			"rw,fd=9,pgrp=1,timeout=18446744073709551,minproto=5,maxproto=5,direct",
			with(func(o *Options) { o.Timeout = math.MaxInt64 / time.Second * time.Second }), false,
		},
	} {
		got, err := ParseOptions(test.super)
		if err != nil || got != test.want || got.Catatonic() != test.catatonic {
			t.Errorf("%s: %+v, catatonic %v, %v; want %+v", name, got, got.Catatonic(), err, test.want)
		}
	}
}

func TestParseOptionsErrors(t *testing.T) {
	const good = "rw,fd=9,pgrp=1,timeout=0,minproto=5,maxproto=5,direct,pipe_ino=7"
	swap := func(from, to string) string { return strings.Replace(good, from, to, 1) }
	for super, say := range map[string]string{
		"":                                         "no fd",
		"rw":                                       "no fd",
		swap(",direct", ""):                        "no type",
		swap("pgrp=1,", ""):                        "no pgrp",
		swap("fd=9", "fd="):                        "fd=",
		swap("fd=9", "fd"):                         "fd",
		swap("fd=9", "fd=-2"):                      "not within",
		swap("fd=9", "fd=99999999999"):             "not within",
		swap("fd=9", "fd=99999999999999999999"):    "out of range",
		swap("pgrp=1", "pgrp=-1"):                  "not within",
		swap("timeout=0", "timeout=-1"):            "timeout",
		swap("timeout=0", "timeout=1s"):            "timeout",
		swap("=7", "=-7"):                          "pipe_ino",
		swap("=7", "=0x7"):                         "pipe_ino",
		good + ",offset":                           "twice",
		good + ",fd=3":                             "twice",
		good + ",uid=4294967296":                   "not within",
		strings.Repeat("x", maxOptions+1):          "bytes",
		good + ",gid=" + strings.Repeat("9", 9999): "...",
	} {
		_, err := ParseOptions(super)
		if !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), say) || len(err.Error()) > 200 {
			t.Errorf("%.60q: error %v, want one with %q", super, err, say)
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	f.Add("rw,fd=9,pgrp=1,timeout=300,minproto=5,maxproto=5,indirect,strictexpire,pipe_ino=7")
	f.Add("rw,fd=-1,uid=1,gid=2,pgrp=0,timeout=18446744073709551615,minproto=5,maxproto=5,offset,ignore,pipe_ino=-1")
	f.Fuzz(func(t *testing.T, super string) {
		o, err := ParseOptions(super)
		if err != nil {
			if !errors.Is(err, ErrOptions) {
				t.Errorf("error %v", err)
			}
			return
		}
		if o.FD < -1 || o.ProcessGroup < 0 || o.Timeout < 0 || !o.Type.Valid() || o.UID < -1 || o.GID < -1 || o.Catatonic() && o.FD != -1 {
			t.Errorf("accepted %+v", o)
		}
	})
}
