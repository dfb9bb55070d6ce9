package doctor

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/install"
)

const (
	here  = "/usr/libexec/oci/hooks.d/autofs-restore-hook"
	conf  = "/etc/criu/default.conf"
	other = "/usr/bin/other"
)

// healthy are the facts of a machine on which all is well.
func healthy() *Facts {
	return &Facts{
		Version: "v1", Root: true, InitialUser: true, InitialPID: true, Kernel: "6.18", Autofs: true,
		Features: []Feature{{Name: "fsopen"}}, Cgroup: "2",
		Survey: &install.Survey{
			Programs: []install.Program{
				{Name: "criu", Path: "/usr/sbin/criu", Version: install.Version{4, 1, 1}},
				{Name: "runc", Path: "/usr/sbin/runc", Version: install.Version{1, 1, 15}},
				{Name: "crun", Path: "/usr/bin/crun", Version: install.Version{1, 21}},
				{Name: "podman", Path: "/usr/bin/podman", Version: install.Version{5, 4, 2}},
			},
			Scripts: []install.Script{{File: conf, Program: here}},
			Targets: []install.Target{{Path: here, IsProgram: true, Version: "v1"}},
		},
	}
}

// TestJudge has what is different from a healthy machine, and the one or more
// verdicts that follow: "STATUS name: part of the text".
func TestJudge(t *testing.T) {
	script := func(file, program string) func(*Facts) {
		return func(f *Facts) {
			f.Survey.Scripts = append(f.Survey.Scripts, install.Script{File: file, Program: program})
		}
	}
	both := func(list ...func(*Facts)) func(*Facts) {
		return func(f *Facts) {
			for _, do := range list {
				do(f)
			}
		}
	}
	criu := func(v ...int) func(*Facts) {
		return func(f *Facts) { copy(f.Survey.Programs[0].Version[:], append(v, 0, 0)) }
	}
	crun := func(v ...int) func(*Facts) {
		return func(f *Facts) { copy(f.Survey.Programs[2].Version[:], append(v, 0, 0)) }
	}
	engine := func(name, off string, v ...int) func(*Facts) {
		return func(f *Facts) {
			p := install.Program{Name: name, Path: "/usr/bin/" + name, RestoreOff: off}
			copy(p.Version[:], v)
			f.Survey.Programs = append(f.Survey.Programs, p)
		}
	}
	target := func(change func(*install.Target)) func(*Facts) {
		return func(f *Facts) { change(&f.Survey.Targets[0]) }
	}
	wrapper := func(problem string) func(*Facts) {
		return func(f *Facts) {
			f.Survey.Targets = append(f.Survey.Targets, install.Target{Path: here + "-action-script", IsProgram: problem == "", Problem: problem, Version: "v1", Calls: here})
		}
	}
	noScript := func(f *Facts) { f.Survey.Scripts = nil }
	hook := func(h install.Hook) func(*Facts) {
		return func(f *Facts) { f.Survey.Hooks = append(f.Survey.Hooks, h) }
	}
	for name, test := range map[string]struct {
		change func(*Facts)
		status int
		want   []string
	}{
		"healthy":        {func(*Facts) {}, 0, []string{"OK runc: its CRIU calls the program once", "OK crun: calls the program once", "OK podman: with runc or crun"}},
		"a user":         {func(f *Facts) { f.Root = false }, 2, []string{"FAIL privileges: not root"}},
		"a capability":   {func(f *Facts) { f.Missing = []string{"CAP_X"} }, 2, []string{"FAIL privileges: without CAP_X"}},
		"user namespace": {func(f *Facts) { f.InitialUser = false }, 2, []string{"FAIL privileges: user namespace"}},
		"pid namespace":  {func(f *Facts) { f.InitialPID = false }, 0, []string{"OK privileges: pid namespace of its own"}},
		"no autofs":      {func(f *Facts) { f.Autofs = false }, 2, []string{"FAIL kernel: without autofs"}},
		"no device":      {func(f *Facts) { f.Device = "open /dev/autofs: no" }, 2, []string{"FAIL kernel: open /dev/autofs: no"}},
		"a feature": {
			func(f *Facts) { f.Features[0].Error, f.Features[0].Needed = "not implemented", "no mount is preserved" }, 1,
			[]string{"WARN kernel feature: fsopen: not implemented: no mount is preserved"},
		},
		"an essential one": {
			func(f *Facts) { f.Features[0] = Feature{Name: "x", Error: "no", Essential: true} }, 2, []string{"FAIL kernel feature: x: no"},
		},
		"SELinux":           {func(f *Facts) { f.Security = []string{"SELinux, enforcing"} }, 0, []string{"OK security module: SELinux"}},
		"no CRIU":           {func(f *Facts) { f.Survey.Programs = f.Survey.Programs[1:] }, 2, []string{"FAIL criu: not found"}},
		"a broken CRIU":     {func(f *Facts) { f.Survey.Programs[0].Problem = "exit status 1" }, 2, []string{"FAIL criu: exit status 1"}},
		"CRIU 3.18":         {criu(3, 18), 2, []string{"WARN criu: 3.18", "FAIL criu configuration: aborts every checkpoint", "FAIL runc: nothing calls"}},
		"CRIU 3.18, clean":  {both(criu(3, 18), noScript), 2, []string{"WARN criu: 3.18", "FAIL runc: nothing calls the program"}},
		"CRIU 3.18, a hook": {both(criu(3, 18), noScript, hook(install.Hook{File: "/h.json", Program: here})), 2, []string{"OK runc: OCI hook", "FAIL crun: nothing calls"}},
		"CRIU 3.19":         {criu(3, 19), 0, []string{"OK criu: 3.19", "OK runc: once"}},
		"not installed":     {both(noScript, func(f *Facts) { f.Survey.Targets = nil }), 2, []string{"FAIL program: not installed", "FAIL runc: nothing calls", "FAIL crun: nothing calls"}},
		"no force-irmap":    {func(*Facts) {}, 0, []string{"OK checkpoints: no force-irmap"}},
		"force-irmap":       {func(f *Facts) { f.Survey.ForceIrmap = []string{conf} }, 0, []string{"OK checkpoints: " + conf + " sets force-irmap"}},
		"crun's groups":     {func(*Facts) {}, 0, []string{"OK crun: without a cgroup namespace"}},
		"runc's groups":     {func(f *Facts) { f.Survey.Programs[1].Version = install.Version{1, 3, 6} }, 0, []string{"OK runc: without a cgroup namespace"}},
		"home":              {both(noScript, script("/root/.criu/default.conf", here)), 0, []string{"OK runc: once", "OK crun: once"}},
		"runc.conf":         {both(noScript, script("/etc/criu/runc.conf", here)), 2, []string{"OK runc: calls the program 2 times", "FAIL crun: nothing calls"}},
		"runc.conf, 4.2":    {both(noScript, script("/etc/criu/runc.conf", here), criu(4, 2)), 2, []string{"OK runc: once", "FAIL crun: nothing calls"}},
		"runc.conf, crun":   {both(noScript, script("/etc/criu/runc.conf", here), criu(4, 2), crun(1, 26)), 0, []string{"OK runc: once", "OK crun: once"}},
		"runc.conf, only":   {both(noScript, script("/etc/criu/runc.conf", here), crun(1, 26)), 2, []string{"OK runc: 2 times", "FAIL crun: nothing calls"}},
		"crun.conf first":   {both(noScript, script("/etc/criu/runc.conf", here), script("/etc/criu/crun.conf", other), criu(4, 2), crun(1, 26)), 2, []string{"OK runc: once", "FAIL crun: nothing calls"}},
		"both":              {script("/etc/criu/runc.conf", here), 0, []string{"OK runc: 3 times", "OK crun: once"}},
		"both, 4.2":         {both(script("/etc/criu/runc.conf", here), criu(4, 2)), 0, []string{"OK runc: 2 times"}},
		"another script":    {both(script(conf, other), func(f *Facts) { f.Survey.Targets = append(f.Survey.Targets, install.Target{Path: other}) }), 0, []string{"OK criu configuration: /usr/bin/other"}},
		"one that is gone": {both(script(conf, other), func(f *Facts) {
			f.Survey.Targets = append(f.Survey.Targets, install.Target{Path: other, Problem: "it does not exist"})
		}), 2, []string{"FAIL criu configuration: CRIU aborts every restore"}},
		"a relative one":     {script(conf, "x"), 2, []string{"FAIL criu configuration: not an absolute path"}},
		"a binary file":      {func(f *Facts) { f.Survey.Unreadable = []string{conf + ": has NUL bytes"} }, 2, []string{"FAIL criu configuration: NUL"}},
		"the program gone":   {target(func(x *install.Target) { x.IsProgram, x.Problem = false, "it does not exist" }), 2, []string{"FAIL program: does not exist", "FAIL criu configuration: CRIU aborts", "FAIL runc: nothing calls"}},
		"the action script":  {both(noScript, script(conf, here+"-action-script"), wrapper("")), 0, []string{"OK criu configuration: -action-script", "OK runc: once"}},
		"one without it":     {both(noScript, script(conf, here+"-action-script"), wrapper("it does not exist")), 2, []string{"FAIL criu configuration: nothing is repaired", "FAIL runc: nothing calls"}},
		"another program":    {target(func(x *install.Target) { x.IsProgram = false }), 2, []string{"FAIL program: is another program"}},
		"another version":    {target(func(x *install.Target) { x.Version = "v0" }), 1, []string{`WARN program: is version "v0", this is "v1"`}},
		"a hook":             {hook(install.Hook{File: "/h.json", Program: here}), 0, []string{"OK hook file: /h.json calls"}},
		"a broken hook":      {hook(install.Hook{File: "/h.json", Problem: "unexpected end"}), 2, []string{"FAIL hook file: start no container"}},
		"a hook to nowhere":  {hook(install.Hook{File: "/h.json", Program: "x"}), 2, []string{"FAIL hook file: containers with this hook do not start"}},
		"an engine, unknown": {func(f *Facts) { f.Survey.Programs[3].Problem = "exit status 2" }, 0, []string{"OK podman: exit status 2"}},
		"restore is off":     {engine("containerd", "enable_criu = false", 2, 3, 4), 1, []string{"WARN containerd: restore is switched off by its configuration (enable_criu = false)"}},
		"CRI-O's is off":     {engine("crio", "enable_criu_support = false", 1, 37), 1, []string{"WARN crio: switched off"}},
		"restore is on":      {engine("containerd", "", 2, 3, 4), 0, []string{"OK containerd: it restores containers with runc or crun"}},
		"containerd 2.0":     {engine("containerd", "", 2, 0, 5), 0, []string{"OK containerd: but not those of pods"}},
		"containerd 2.4":     {engine("containerd", "", 2, 4), 0, []string{"OK containerd: but not those of pods"}},
		"good reports":       {func(f *Facts) { f.Reports = []Report{{Outcome: "repaired"}, {Outcome: "nothing-to-do"}} }, 0, []string{"OK reports: 2 of the last 2"}},
		"a bad report": {
			func(f *Facts) {
				f.Reports = []Report{{Container: "a\nOK", PID: 7, Outcome: "failed", Error: "x\ny"}, {Outcome: "repaired"}}
			}, 1,
			[]string{`WARN report: container "a\nOK": "failed": "x\ny"`, "OK reports: 1 of the last 2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			test.change(f)
			checks := Judge(f)
			if got := ExitStatus(checks); got != test.status {
				t.Errorf("exit status %d, want %d", got, test.status)
			}
			for _, w := range test.want {
				status, rest, _ := strings.Cut(w, " ")
				thing, part, _ := strings.Cut(rest, ": ")
				found := false
				for _, c := range checks {
					found = found || string(c.Status) == status && c.Name == thing && strings.Contains(c.Text, part)
				}
				if !found {
					t.Errorf("no %q in %+v", w, checks)
				}
			}
			for _, c := range checks {
				if strings.Contains(c.Text+c.Next, "\n") || c.Text == "" || (c.Status != OK) != (c.Next != "") {
					t.Errorf("want one line, and a next step if something is wrong: %+v", c)
				}
			}
		})
	}
}

// TestGather looks at this machine.
func TestGather(t *testing.T) {
	dir := t.TempDir()
	for i, text := range []string{`{"container":"old","outcome":"repaired"}`, "{", `{"container":"new","pid":7,"outcome":"failed"}`} {
		name := filepath.Join(dir, string(rune('c'-i))+".json")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, time.Time{}, time.Unix(int64(1000+i), 0)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Gather(context.Background(), "v1", dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Reports) != 3 || f.Reports[0].Container != "new" || f.Reports[1].Outcome != "unreadable" || f.Reports[2].Container != "old" {
		t.Errorf("reports %+v", f.Reports)
	}
	if f.Root != (os.Geteuid() == 0) || f.Kernel == "" || len(f.Features) < 10 || f.Survey == nil {
		t.Errorf("%+v", f)
	}
	if f.Root {
		for _, x := range f.Features {
			if x.Error != "" {
				t.Errorf("feature %+v, on a kernel where all tests run", x)
			}
		}
	}
	if data, err := json.Marshal(Judge(f)); err != nil || !strings.Contains(string(data), `"status":`) {
		t.Errorf("%s, %v", data, err)
	}
}

// TestProbes: what is not there is an error, what was called wrongly on purpose
// is not.
func TestProbes(t *testing.T) {
	for err, want := range map[error]bool{unix.ENOSYS: true, unix.EPERM: true, unix.EINVAL: false, unix.EBADF: false} {
		if got := exists(err); (got != nil) != want {
			t.Errorf("%v: %v", err, got)
		}
	}
	if err := useFD(unix.Fsopen("no-such-filesystem", unix.FSOPEN_CLOEXEC)); err == nil {
		t.Error("a file system that does not exist was opened")
	}
}
