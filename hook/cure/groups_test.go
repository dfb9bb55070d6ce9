package cure

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/criuimage"
)

// watchesOf returns watches of paths in a cgroup mount at /sys/fs/cgroup with the id 7.
func watchesOf(root string, paths ...string) *criuimage.Watched {
	w := &criuimage.Watched{Groups: map[uint32]criuimage.GroupMount{7: {MountPoint: "/sys/fs/cgroup", Root: root}}}
	for _, p := range paths {
		w.Watches = append(w.Watches, criuimage.Watch{Path: p, MountID: 7})
	}
	return w
}

func TestWatchedGroups(t *testing.T) {
	const own = "/pods/me"
	const top = "/sys/fs/cgroup"
	deep := top + strings.Repeat("/a", cgroup.MaxDepth)
	for name, test := range map[string]struct {
		view    GroupView
		root    string
		paths   []string
		want    []string
		refused string // part of the error
	}{
		"files of groups":          {OwnView, "/", []string{top + "/system.slice/a.mount/cgroup.events", top + "/init.scope/memory.events"}, []string{"system.slice/a.mount", "init.scope"}, ""},
		"a group itself":           {OwnView, "/", []string{top + "/system.slice"}, []string{"system.slice"}, ""},
		"once":                     {OwnView, "/", []string{top + "/a/cgroup.events", top + "/a/memory.events", top + "/a"}, []string{"a"}, ""},
		"the container's own":      {OwnView, "/", []string{top + "/cgroup.events", top}, nil, ""},
		"no path":                  {OwnView, "/", []string{""}, nil, ""},
		"another mount point":      {OwnView, "/", []string{"/etc/localtime", "/sys/fs/cgroup2/a"}, nil, ""},
		"a mount of a group":       {OwnView, "/sub", []string{top + "/a/cgroup.events"}, []string{"sub/a"}, ""},
		"dot dot":                  {OwnView, "/", []string{top + "/../../x", top + "/a/../../../x", top + "/.."}, nil, ""},
		"dot dot in the root":      {OwnView, "/../..", []string{top + "/a"}, []string{"a"}, ""},
		"dot dot in a bad root":    {OwnView, "../..", []string{top + "/a"}, nil, "names no control group"},
		"double slash":             {OwnView, "/", []string{top + "//a"}, nil, ""},
		"a name of the kernel's":   {OwnView, "/", []string{top + "/cgroup.procs/a", top + "/memory.max/b"}, nil, "names no control group"},
		"newline":                  {OwnView, "/", []string{top + "/a\nb/cgroup.events"}, nil, "names no control group"},
		"4,000 characters":         {OwnView, "/", []string{top + "/" + strings.Repeat("a", 4000)}, nil, "names no control group"},
		"4,000 characters, groups": {OwnView, "/", []string{top + "/" + strings.Repeat("a/", 2000) + "a"}, nil, "names no control group"},
		"deepest":                  {OwnView, "/", []string{deep}, []string{strings.TrimPrefix(deep, top+"/")}, ""},
		"too deep":                 {OwnView, "/", []string{deep + "/b"}, nil, "names no control group"},
		"good beside bad":          {OwnView, "/", []string{top + "/cgroup.x/y", top + "/a"}, []string{"a"}, "and 0 more"},
		"host's view":              {HostView, "/", []string{top + "/pods/me/a/cgroup.events", top + "/pods/me/cgroup.events"}, []string{"a"}, ""},
		"host's view, elsewhere":   {HostView, "/", []string{top + "/pods/me2/a/cgroup.events", top + "/b", top + "/pods"}, nil, `not within the container's own "/pods/me", and 2 more`},
		"host's view, own view's":  {HostView, "/", []string{top + "/system.slice/cgroup.events"}, nil, "not within"},
		"any view":                 {AnyView, "/", []string{top + "/pods/me/a", top + "/b"}, []string{"a", "b"}, ""},
	} {
		got, refused := watchedGroups(watchesOf(test.root, test.paths...), own, test.view)
		text := fmt.Sprint(refused.err(own))
		if !slices.Equal(got, test.want) || (test.refused == "") != (text == "<nil>") || !strings.Contains(text, test.refused) || len(text) > 1000 {
			t.Errorf("%s: %q, %s; want %q, %q", name, got, text, test.want, test.refused)
		}
	}
}

// TestWatchedGroupsMany: the limit is that of the groups that are created, parents included.
func TestWatchedGroupsMany(t *testing.T) {
	for form, want := range map[string]int{
		"/sys/fs/cgroup/%d/cgroup.events":                             cgroup.MaxGroups,
		"/sys/fs/cgroup/%d" + strings.Repeat("/a", cgroup.MaxDepth-1): cgroup.MaxGroups / cgroup.MaxDepth,
	} {
		paths := make([]string, 100000)
		for i := range paths {
			paths[i] = fmt.Sprintf(form, i)
		}
		got, refused := watchedGroups(watchesOf("/", paths...), "/own", OwnView)
		if err := refused.err("/own"); len(got) != want || err == nil || !strings.Contains(err.Error(), "4096") {
			t.Errorf("%s: %d groups, want %d, %v", form, len(got), want, err)
		}
	}
}
