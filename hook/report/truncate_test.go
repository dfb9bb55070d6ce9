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
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
)

// TestTruncate: texts and warnings have a limit.
func TestTruncate(t *testing.T) {
	if text := strings.Repeat("a", maxText); truncate(text) != text {
		t.Error("a short text was cut")
	}
	long := truncate(strings.Repeat("ä", maxText)) // two bytes each
	if len(long) > maxText+30 || !utf8.ValidString(long) || !strings.HasSuffix(long, fmt.Sprintf("(%d bytes more)", maxText)) {
		t.Errorf("%d bytes, ending in %q", len(long), long[len(long)-30:])
	}
	var collected []string
	warned := 0
	warn := CollectWarnings(TruncateWarnings(func(err error) {
		warned++
		if len(err.Error()) > maxText+30 {
			t.Errorf("a warning of %d bytes", len(err.Error()))
		}
	}), &collected)
	for range maxWarnings + 5 {
		warn(errors.New(strings.Repeat("x", 1<<20)))
	}
	if len(collected) != maxWarnings || warned != maxWarnings+5 || len(collected[0]) > maxText+30 {
		t.Errorf("%d collected, %d warnings, %d bytes", len(collected), warned, len(collected[0]))
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

// TestReportSize: the texts about mounts are shortened once they exceed the limit.
func TestReportSize(t *testing.T) {
	long := "/" + strings.Repeat("deep/", 1000)
	s := &container.Snapshot{}
	var decisions []plan.Decision
	for range 4000 {
		m := containertest.SystemdMount(func(m *container.Mount) { m.Path = long })
		for range 50 {
			m.Below = append(m.Below, container.Cover{Type: "tmpfs", Path: long})
		}
		s.Mounts = append(s.Mounts, m)
		decisions = append(decisions, plan.Decision{Cure: plan.Unrepaired, Reason: long})
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
