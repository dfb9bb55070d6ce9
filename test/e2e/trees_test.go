package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// tree is a container with automounts within automounts. CRIU 4.1.1 cannot restore all of
// them:
//
//   - a direct or offset mount of automount with a mount on it ("Open files on
//     overmounted mounts are not supported yet"), or hidden by a mount on a folder
//     above ("Failed to open");
//   - an entry with several offsets but none at "/", once it was accessed ("Can't stat
//     mountpoint", and "Failed to create autofs dentry" in an indirect map).
var tree = struct {
	automount map[string]string // maps, by file
	units     []string          // paths of systemd's automounts
	types     map[string]string // of all autofs mounts at the checkpoint, by path
	active    []string          // paths that are accessed before the checkpoint
}{
	automount: map[string]string{
		"/etc/auto.master": "/- /etc/auto.direct --timeout=3600\n" +
			"/indirect /etc/auto.indirect --timeout=3600\n/browse /etc/auto.browse browse,timeout=3600\n",
		"/etc/auto.direct":   treeEntry("/direct/one") + treeEntry("/above/key") + treeEntry("/multi/direct", "/sub"),
		"/etc/auto.indirect": treeEntry("active") + treeEntry("second") + treeEntry("idle") + treeEntry("multi", "/sub", "/other"),
		"/etc/auto.browse":   treeEntry("one") + treeEntry("two") + treeEntry("three"),
	},
	units: []string{"/nest", "/nest/idle", "/nest/used"},
	types: map[string]string{
		"/nest": "direct", "/nest/idle": "direct", "/nest/used": "direct",
		lab.Idle: "direct", lab.Blank: "direct", lab.Covered: "direct", lab.Stacked: "direct", lab.Binfmt: "direct",
		"/indirect": "indirect", "/browse": "indirect",
		"/direct/one": "direct", "/above/key": "direct", "/multi/direct": "direct",
		"/indirect/multi/sub": "offset", "/indirect/multi/other": "offset",
	},
	active: []string{"/nest/used", "/indirect/active", "/indirect/second", "/indirect/multi", "/browse/two"},
}

// treePaths are all paths of automounted file systems, the mounted ones first.
var treePaths = []string{
	"/nest", "/nest/used", "/indirect/active", "/indirect/second", "/indirect/multi", "/browse/two",
	"/nest/idle", "/direct/one", "/above/key", "/multi/direct", "/multi/direct/sub",
	"/indirect/idle", "/indirect/multi/sub", "/indirect/multi/other", "/browse/one", "/browse/three",
}

// treeEntry returns a line of an automount map: with offsets, also one at "/".
func treeEntry(key string, offsets ...string) string {
	source := "/srv/" + strings.TrimPrefix(key, "/")
	if len(offsets) == 0 {
		return fmt.Sprintf("%s -fstype=bind :%s\n", key, source)
	}
	line := fmt.Sprintf("%s -fstype=bind / :%s", key, source)
	for _, offset := range offsets {
		line += fmt.Sprintf(" %s :%s%s", offset, source, strings.ReplaceAll(offset, "/", "-"))
	}
	return line + "\n"
}

// treeSource returns the folder that is mounted at a path of the tree.
func treeSource(path string) string {
	name := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(path, "/indirect/"), "/browse/"), "/")
	for _, multi := range []string{"multi/direct", "multi"} {
		if offset, in := strings.CutPrefix(name, multi+"/"); in && path != "/multi/direct" {
			name = multi + "-" + offset
			break
		}
	}
	if inner, in := strings.CutPrefix(name, "nest/"); in {
		name = "nest-" + inner // its mount point is in the folder "nest"
	}
	return "/srv/" + name
}

func treeFiles() map[string]string {
	const units = "/etc/systemd/system/"
	files := maps.Clone(tree.automount)
	for _, path := range treePaths {
		files[treeSource(path)+"/"+lab.Marker] = path + "\n"
	}
	wants := ""
	for _, path := range tree.units {
		files[units+lab.UnitName(path, "automount")] = fmt.Sprintf("[Automount]\nWhere=%s\n", path)
		files[units+lab.UnitName(path, "mount")] = fmt.Sprintf("[Mount]\nWhat=%s\nWhere=%s\nType=none\nOptions=bind\n", treeSource(path), path)
		wants += "Wants=" + lab.UnitName(path, "automount") + "\n"
	}
	// The mount points within other mounts.
	for _, path := range []string{"/srv/nest/idle", "/srv/nest/used", "/srv/multi/direct/sub", "/srv/multi/sub", "/srv/multi/other"} {
		files[path+"/beneath"] = ""
	}
	files[units+"multi-user.target.d/tree.conf"] = "[Unit]\n" + wants
	files[units+"above.mount"] = "[Mount]\nWhat=above\nWhere=/above\nType=tmpfs\nOptions=size=1m\n"
	files[units+"autofs.service.d/above.conf"] = "[Unit]\nWants=above.mount\nAfter=above.mount\n"
	return files
}

// TestTrees repairs automounts within automounts: entries with offsets, below another
// mount, several keys of an indirect map, its names for all keys (browse mode), and
// automounts of systemd below one.
func TestTrees(t *testing.T) {
	requireHook(t)
	c := lab.Start(t, lab.Options{Files: treeFiles()})
	c.CheckAnswers(t, treeAccesses(tree.active))
	c.Settle(t)
	browse := c.Run(t, "ls", "/browse")
	stacks := treeStacks(t, c)
	found := slices.Sorted(maps.Keys(lab.Autofs(t, c.PID)))
	for path := range tree.types {
		if !slices.Contains(found, path) {
			t.Fatalf("no autofs at %s before the checkpoint, but at %q", path, found)
		}
	}
	s := checkpointOf(t, c)
	for _, cure := range systemdCures {
		t.Run(cure, func(t *testing.T) {
			r := restoreTo(t, s, cure, nil)
			report := r.ReadReport(t)
			checkCure(t, report, cure)
			checkTypes(t, report)
			if cure == "preserved" {
				delete(s.units, "indirect-multi.mount")
				checkUnits(t, s, r)
			}
			for _, change := range lab.Changes(stacks, treeStacks(t, r.Container)) {
				if !strings.Contains(change, "/indirect/multi") { // an idle entry with offsets is mounted by the next access
					t.Errorf("mounts: %s", change)
				}
			}
			if now := r.Try(t, lab.AnswerLimit, "ls", "/browse"); now.Output != browse {
				t.Errorf("the names in /browse: %s, want %q", now, browse)
			}
			r.CheckAnswers(t, treeAccesses(treePaths))
			checkNoWaiters(t, r.Container)
			r.Kill(t) // the next one has the same name
		})
	}
}

func treeAccesses(paths []string) []lab.Access {
	var list []lab.Access
	for _, path := range paths {
		list = append(list, lab.Access{Path: path + "/" + lab.Marker, Content: path, About: "in a tree"})
	}
	return list
}

// treeStacks describes the mounts at each path of the tree.
func treeStacks(t *testing.T, c *lab.Container) []string {
	t.Helper()
	paths := slices.Collect(maps.Keys(tree.types))
	for _, path := range treePaths {
		if !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	var list []string
	for _, path := range paths {
		list = append(list, path+": "+lab.Stack(t, c.PID, path))
	}
	return list
}

// checkTypes checks the cure and the type of each autofs mount.
func checkTypes(t *testing.T, report lab.Report) {
	t.Helper()
	reported := make(map[string]bool)
	for _, m := range report.Mounts {
		reported[m.Path] = true
		if m.Type != tree.types[m.Path] {
			t.Errorf("report: %s: type %q, want %q", m.Path, m.Type, tree.types[m.Path])
		}
		if !slices.Contains(cures, m.Outcome) {
			t.Errorf("report: %s: outcome %q (%s)", m.Path, m.Outcome, m.Reason)
		}
	}
	for path := range tree.types {
		if !reported[path] {
			t.Errorf("report: nothing about %s", path)
		}
	}
}
