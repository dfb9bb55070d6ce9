package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container/containertest"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// TestBrief: no text of a container makes a log or a report long.
func TestBrief(t *testing.T) {
	if text := strings.Repeat("a", maxText); Truncate(text) != text {
		t.Error("a short text was cut")
	}
	long := Truncate(strings.Repeat("ä", maxText)) // two bytes each
	if len(long) > maxText+30 || !utf8.ValidString(long) || !strings.HasSuffix(long, fmt.Sprintf("(%d bytes more)", maxText)) {
		t.Errorf("%d bytes, ending in %q", len(long), long[len(long)-30:])
	}
	var notes []string
	warned := 0
	warn := CollectWarnings(TruncateWarnings(func(err error) {
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
	u.Paths = make([]string, maxListed+3)
	if got := u.Listed(); !strings.HasSuffix(got, "] and 3 more") || strings.Count(got, `"`) != 2*maxListed {
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
		"all that are allowed": {[]string{many(container.MaxAutofs - 1), many(1)}, container.MaxAutofs, ""},
		"one more":             {[]string{many(container.MaxAutofs - 1), many(2)}, 0, "more than 16384 autofs mounts"},
		"on each other":        {[]string{chain(700)}, 700, ""},
		"too many on each":     {[]string{chain(800)}, 0, "more than 262144 mounts"},
	} {
		s := &container.Container{}
		for _, text := range test.tables {
			table, err := mounts.Read(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			s.Spaces = append(s.Spaces, &container.Space{Process: self, Table: table})
		}
		list, err := s.ListAutofs()
		if len(list) != test.found || (err == nil) != (test.reason == "") || err != nil && !strings.Contains(err.Error(), test.reason) {
			t.Errorf("%s: %d mounts, %v", name, len(list), err)
		}
	}
}

// TestReportSize: covers with long paths on many mounts at one place are not told
// again for each.
func TestReportSize(t *testing.T) {
	long := "/" + strings.Repeat("deep/", 20_000)
	s := &container.Snapshot{}
	var decisions []plan.Decision
	for i := range 4000 {
		m := containertest.SystemdMount(func(m *container.Mount) { m.Path = long })
		for range 50 {
			m.Below = append(m.Below, container.Cover{Type: "tmpfs", Path: long})
		}
		s.Mounts = append(s.Mounts, m)
		decisions = append(decisions, plan.Decision{Mount: i, Cure: plan.Unrepaired, Reason: long})
	}
	r := &Report{Mounts: []Mount{}}
	r.Describe(s, decisions)
	r.Finish(time.Now(), nil)
	data, err := json.Marshal(r)
	if err != nil || len(data) > 2*maxReport || len(r.Mounts) != len(decisions) || r.Outcome != Failed {
		t.Errorf("%d bytes for %d mounts, %s, %v", len(data), len(r.Mounts), r.Outcome, err)
	}
	if first := r.Mounts[0]; len(first.CoveredBy) != maxReportedCovers+1 || first.CoveredBy[maxReportedCovers] != "18 more" {
		t.Errorf("%d covers, the last %q", len(first.CoveredBy), first.CoveredBy[len(first.CoveredBy)-1])
	}
	if last := r.Mounts[len(decisions)-1]; len(last.CoveredBy) != 1 || len(last.Path) > MaxShort+30 {
		t.Errorf("the last mount: %q, %d bytes of path", last.CoveredBy, len(last.Path))
	}
	for _, u := range r.Unrepaired() {
		if len(u.Listed()) > maxText+60 {
			t.Errorf("a line of %d bytes", len(u.Listed()))
		}
	}
}
