package install

import (
	"context"
	"slices"
	"strings"
)

// restoreOff returns the setting with which an engine's configuration keeps its CRI from
// restoring containers, "" if none does or the engine has no such setting. The engine
// itself says what it reads: with defaults, drop-ins and imports, in the form of its
// version.
func (t *tree) restoreOff(ctx context.Context, p Program) string {
	var arguments []string
	switch p.Name {
	case string(Containerd):
		arguments = []string{"config", "dump"}
	case string(CRIO):
		arguments = []string{"config"}
	default:
		return ""
	}
	text, err := t.run(ctx, nil, p.Path, arguments...)
	if err != nil {
		return "" // unknown
	}
	return restoreSetting(string(text))
}

// offSettings are the settings that keep an engine from restoring, as engines print
// them: containerd since 2.3.4 and 2.2.7, and since 2.3; CRI-O.
var offSettings = []string{
	"enable_experimental_restore_via_create = false", "enable_criu = false",
	"enable_criu_support = false", `container_level_enabled = "checkpoint_only"`, `container_level_enabled = "none"`,
}

// restoreSetting looks for such a setting in what an engine prints. containerd without
// its CRI, as Docker configures it, restores no pods anyway: it has none.
func restoreSetting(text string) string {
	off := ""
	for line := range strings.Lines(text) {
		// CRI-O prints a default as a comment.
		line = strings.TrimPrefix(strings.TrimSpace(line), "# ")
		if list, ok := strings.CutPrefix(line, "disabled_plugins = ["); ok &&
			(strings.Contains(list, "cri'") || strings.Contains(list, `cri"`) || strings.Contains(list, "io.containerd.cri.v1.runtime")) {
			return ""
		}
		if off == "" && slices.Contains(offSettings, line) {
			off = line
		}
	}
	return off
}
