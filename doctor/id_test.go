package doctor

import (
	"regexp"
	"slices"
	"testing"
)

// TestIDs: monitoring relies on them.
func TestIDs(t *testing.T) {
	f := healthy()
	f.Features = features()
	for i := range f.Features {
		f.Features[i].Error = "not implemented"
	}
	want := []string{
		"privileges", "kernel",
		"kernel-feature-pidfd-open", "kernel-feature-openat2", "kernel-feature-open-tree", "kernel-feature-mount-setattr", "kernel-feature-fsopen",
		"kernel-feature-statx-mnt-id", "kernel-feature-pidfd-getfd", "kernel-feature-close-range", "kernel-feature-clone3",
		"kernel-feature-proc-children", "kernel-feature-ptrace",
		"cgroups", "criu", "criu-configuration", "checkpoints", "runc", "crun", "podman", "program", "reports",
	}
	got := map[string]bool{}
	for _, c := range Judge(f) {
		got[c.ID] = true
		if !slices.Contains(want, c.ID) || !regexp.MustCompile(`^[a-z0-9-]+$`).MatchString(c.ID) {
			t.Errorf("new: %+v", c)
		}
	}
	for _, id := range want {
		if !got[id] {
			t.Errorf("no check %s", id)
		}
	}
}
