package hook

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// TestBrief: no text of a container makes a log or a report long.
func TestBrief(t *testing.T) {
	if text := strings.Repeat("a", maxText); brief(text) != text {
		t.Error("a short text was cut")
	}
	long := brief(strings.Repeat("ä", maxText)) // two bytes each
	if len(long) > maxText+30 || !utf8.ValidString(long) || !strings.HasSuffix(long, fmt.Sprintf("(%d bytes more)", maxText)) {
		t.Errorf("%d bytes, ending in %q", len(long), long[len(long)-30:])
	}
	var notes []string
	warned := 0
	warn := collect(briefly(func(err error) {
		warned++
		if len(err.Error()) > maxText+30 {
			t.Errorf("a warning of %d bytes", len(err.Error()))
		}
	}), &notes)
	for range maxWarnings + 5 {
		warn(errors.New(strings.Repeat("x", 1<<20)))
	}
	if len(notes) != maxWarnings || warned != maxWarnings+5 || len(notes[0]) > maxText+30 {
		t.Errorf("%d notes, %d warnings, %d bytes", len(notes), warned, len(notes[0]))
	}
}

func TestListed(t *testing.T) {
	u := UnrepairedMounts{Paths: []string{"/a", "/b\n"}}
	if got := u.Listed(); got != `["/a" "/b\n"]` {
		t.Errorf("%s", got)
	}
	u.Paths = make([]string, maxPaths+3)
	if got := u.Listed(); !strings.HasSuffix(got, "] and 3 more") || strings.Count(got, `"`) != 2*maxPaths {
		t.Errorf("%s", got)
	}
}

// TestListAutofsLimits: a container may have any number of mounts; beyond what is
// plausible none is looked at.
func TestListAutofsLimits(t *testing.T) {
	line := func(id, parent int, path, kind string) string {
		return fmt.Sprintf("%d %d 0:50 / %s rw - %s x rw,fd=1,pgrp=1,timeout=0,minproto=5,maxproto=5,direct\n", id, parent, path, kind)
	}
	many := func(count int) string {
		var text strings.Builder
		for i := range count {
			text.WriteString(line(i+2, 1, fmt.Sprintf("/m%d", i), "autofs"))
		}
		return text.String()
	}
	chain := func(count int) string {
		var text strings.Builder
		for i := range count {
			text.WriteString(line(i+2, i+1, "/"+strings.Repeat("a/", i)+"a", "autofs"))
		}
		return text.String()
	}
	self, err := nsenter.Open(1)
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	for name, test := range map[string]struct {
		tables []string
		found  int
		reason string
	}{
		"all that are allowed": {[]string{many(maxAutofs - 1), many(1)}, maxAutofs, ""},
		"one more":             {[]string{many(maxAutofs - 1), many(2)}, 0, "more than 16384 autofs mounts"},
		"on each other":        {[]string{chain(700)}, 700, ""},
		"too many on each":     {[]string{chain(800)}, 0, "more than 262144 mounts"},
	} {
		s := &scene{}
		for _, text := range test.tables {
			table, err := mounts.Read(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			s.spaces = append(s.spaces, &space{process: self, table: table})
		}
		list, err := s.listAutofs()
		if len(list) != test.found || (err == nil) != (test.reason == "") || err != nil && !strings.Contains(err.Error(), test.reason) {
			t.Errorf("%s: %d mounts, %v", name, len(list), err)
		}
	}
}
