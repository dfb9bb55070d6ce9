package install

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const (
	own      = "/usr/libexec/oci/hooks.d/autofs-restore-hook"
	script   = own + "-action-script"
	line     = "action-script " + script + "\n"
	direct   = "action-script " + own + "\n"
	version4 = "Version: 4.1.1\nGitID: v4.1.1-2\n"
	hookFile = HooksDirectory + "/autofs-restore-hook-createRuntime.json"
)

// TestInstallUninstall installs into many kinds of machines, twice, and uninstalls: the
// files are as before, byte for byte.
func TestInstallUninstall(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		links map[string]string
		conf  string // what CRIU reads then
		all   bool
		// noShell removes the machine's shell.
		noShell bool
	}{
		"no configuration":           {conf: line},
		"an empty one":               {files: map[string]string{CRIUFile: ""}, conf: line},
		"an empty directory":         {files: map[string]string{"/etc/criu/x": ""}, conf: line},
		"other lines":                {files: map[string]string{CRIUFile: "tcp-close\n# a comment\n"}, conf: "tcp-close\n# a comment\n" + line},
		"no newline at its end":      {files: map[string]string{CRIUFile: "tcp-close"}, conf: "tcp-close\n" + line},
		"another action script":      {files: map[string]string{CRIUFile: "action-script=/usr/bin/criu-coordinator\n"}, conf: "action-script=/usr/bin/criu-coordinator\n" + line},
		"a comment with the line":    {files: map[string]string{CRIUFile: "#" + line}, conf: "#" + line + line},
		"a link":                     {files: map[string]string{"/srv/criu.conf": "tcp-close\n"}, links: map[string]string{CRIUFile: "../../srv/criu.conf"}, conf: "tcp-close\n" + line},
		"an absolute link":           {files: map[string]string{"/srv/criu.conf": "tcp-close\n"}, links: map[string]string{CRIUFile: "/srv/criu.conf"}, conf: "tcp-close\n" + line},
		"a link that leads out":      {files: map[string]string{"/srv/criu.conf": "x\n"}, links: map[string]string{CRIUFile: "../../../../../../../srv/criu.conf"}, conf: "x\n" + line},
		"a link to nothing":          {files: map[string]string{"/srv/x": ""}, links: map[string]string{CRIUFile: "/srv/criu.conf"}, conf: line},
		"a directory that is a link": {files: map[string]string{"/srv/criu/default.conf": "x\n"}, links: map[string]string{"/etc/criu": "/srv/criu"}, conf: "x\n" + line},
		"no shell":                   {files: map[string]string{"/usr/bin/podman": ""}, noShell: true, conf: direct},
		"every engine": {
			files: map[string]string{"/usr/bin/podman": "", "/usr/bin/crio": "", "/etc/containers/containers.conf": "[engine]\n"},
			conf:  line, all: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := machine(t, version4, test.files)
			for link, target := range test.links {
				if err := os.MkdirAll(filepath.Dir(root+link), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(target, root+link); err != nil {
					t.Fatal(err)
				}
			}
			for _, p := range []string{"/usr/bin/podman", "/usr/bin/crio"} {
				_ = os.Chmod(root+p, 0o755)
			}
			if test.noShell {
				if err := os.Remove(root + shell); err != nil {
					t.Fatal(err)
				}
			}
			o := Options{Root: root, All: test.all}
			unchanged(t, root, func() {
				unchanged(t, root, func() { mustInstall(t, Options{Root: root, All: test.all, DryRun: true}) })
				r := mustInstall(t, o)
				if len(r.Changes) < 3 {
					t.Errorf("changes: %+v", r.Changes)
				}
				conf := get(t, root+CRIUFile)
				if test.links != nil { // as the root sees them
					conf = get(t, root+"/srv/criu.conf") + get(t, root+"/srv/criu/default.conf")
				}
				if conf != test.conf {
					t.Errorf("configuration %q, want %q", conf, test.conf)
				}
				unchanged(t, root, func() {
					if r := mustInstall(t, o); len(r.Changes) > 0 {
						t.Errorf("a second time changes %+v", r.Changes)
					}
				})
				unchanged(t, root, func() { mustUninstall(t, Options{Root: root, DryRun: true}) })
				if r := mustUninstall(t, Options{Root: root}); len(r.Kept) > 0 {
					t.Errorf("kept: %q", r.Kept)
				}
			})
			unchanged(t, root, func() { mustUninstall(t, Options{Root: root}) })
		})
	}
}

// TestRefused has machines on which Install must not write anything.
func TestRefused(t *testing.T) {
	for name, test := range map[string]struct {
		version, want string
		files         map[string]string
		options       Options
		prepare       string // shell, in the root directory
	}{
		"CRIU 3.18":          {version: "Version: 3.18\n", want: "version 3.18: before 3.19"},
		"CRIU 3.17.1, named": {version: "Version: 3.17.1\n", want: "--engine podman", options: Options{Engines: []Engine{CRIU}}},
		"CRIU 3.18, all":     {version: "Version: 3.18\n", want: "before 3.19", options: Options{All: true}},
		"no number":          {version: "Version: four\n", want: `wrote "Version: four"`},
		"another program":    {version: "4.1.1\n", want: `wrote "4.1.1"`},
		"too much":           {version: strings.Repeat("x", 2*maxOutput), want: "more than"},
		"fails":              {version: " ", prepare: ": >usr/sbin/criu.out", want: `exit status 1: "Can't find libnet.so.9"`},
		"no CRIU":            {want: "no criu in /usr/local/sbin"},
		"two, one is old": {
			version: version4, want: "usr/local/bin/criu is version 3.16",
			prepare: "mkdir -p usr/local/bin; cp usr/sbin/criu usr/local/bin/; echo 'Version: 3.16' >usr/local/bin/criu.out",
		},
		"a directory":          {version: version4, prepare: "mkdir -p etc/criu/default.conf", want: "a directory, not a regular file"},
		"a pipe":               {version: version4, prepare: "mkdir etc/criu; mkfifo etc/criu/default.conf", want: "a special file, not a regular file"},
		"NUL bytes":            {version: version4, files: map[string]string{CRIUFile: "a\x00b\n"}, want: "NUL"},
		"too long":             {version: version4, files: map[string]string{CRIUFile: strings.Repeat("#\n", maxText)}, want: "longer than 1048576 bytes"},
		"a loop":               {version: version4, prepare: "mkdir etc/criu; ln -s default.conf etc/criu/default.conf", want: "too many levels"},
		"file for directory":   {version: version4, files: map[string]string{"/etc/criu": ""}, want: "not a directory"},
		"directory to nowhere": {version: version4, prepare: "ln -s /nowhere/at/all etc/criu", want: "mkdir"},
		"a link":               {version: version4, prepare: "mkdir -p usr/libexec/oci/hooks.d; ln -s /x usr/libexec/oci/hooks.d/autofs-restore-hook", want: "a symbolic link"},
		"a foreign file":       {version: version4, files: map[string]string{"/usr/libexec/oci/hooks.d/autofs-restore-hook": "#!/bin/sh\n"}, want: "another program is there"},
		"a foreign script":     {version: version4, files: map[string]string{script: "#!/bin/sh\n"}, want: "another file is there"},
		"a broken record":      {version: version4, files: map[string]string{RecordFile: "{"}, want: "unexpected end of JSON"},
		"blanks":               {version: version4, options: Options{Prefix: "/opt/a b"}, want: `prefix "/opt/a b"`},
		"a quote":              {version: version4, options: Options{Prefix: `/opt/"`}, want: "prefix"},
		"relative":             {version: version4, options: Options{Prefix: "opt"}, want: "absolute"},
		"dots":                 {version: version4, options: Options{Prefix: "/opt/../usr"}, want: "prefix"},
		"no ctr":               {version: version4, options: Options{Engines: []Engine{Containerd}}, want: "no ctr"},
		"no hooks directory": {
			version: version4, options: Options{Engines: []Engine{Podman}}, want: "reads hooks from no directory",
			files: map[string]string{"/etc/containers/containers.conf": "hooks_dir = []\n"},
		},
		"no JSON object from ctr": {
			version: version4, options: Options{Engines: []Engine{Containerd}}, want: "no specification",
			prepare: "cp usr/sbin/criu usr/bin/ctr; echo '[]' >usr/bin/ctr.out",
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := machine(t, test.version, test.files)
			if out, err := exec.Command("sh", "-ec", "cd "+root+"; "+test.prepare).CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
			o := test.options
			o.Root = root
			refused(t, o, test.want)
		})
	}
}

// TestOldCRIU installs for an engine next to a CRIU that is too old.
func TestOldCRIU(t *testing.T) {
	root := machine(t, "Version: 3.17.1\n", nil)
	unchanged(t, root, func() {
		mustInstall(t, Options{Root: root, Engines: []Engine{Podman}})
		if get(t, root+hookFile) == "" || get(t, root+CRIUFile) != "" {
			t.Errorf("hook %q, configuration of CRIU %q", get(t, root+hookFile), get(t, root+CRIUFile))
		}
		mustUninstall(t, Options{Root: root})
	})
	var old *OldCRIUError
	if _, err := Install(context.Background(), Options{Root: root, Program: program}); !errors.As(err, &old) || old.Version != (Version{3, 17, 1}) {
		t.Error(err)
	}
}

// TestNoCRIU writes the line without a CRIU if it was named.
func TestNoCRIU(t *testing.T) {
	root := machine(t, "", nil)
	unchanged(t, root, func() {
		r := mustInstall(t, Options{Root: root, Engines: []Engine{CRIU}})
		if len(r.Notes) == 0 || !strings.Contains(r.Notes[0], "no criu") || get(t, root+CRIUFile) != line {
			t.Errorf("%q, %q", r.Notes, get(t, root+CRIUFile))
		}
		mustUninstall(t, Options{Root: root})
	})
	if _, err := Install(context.Background(), Options{Root: root, Program: program}); !errors.Is(err, ErrNothingInstalled) {
		t.Error(err)
	}
}

// TestConcurrentRuns has runs exclude each other.
func TestConcurrentRuns(t *testing.T) {
	root := machine(t, version4, map[string]string{CRIUFile: "tcp-close\n"})
	unchanged(t, root, func() {
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				if _, err := Install(context.Background(), Options{Root: root, Program: program}); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if got := get(t, root+CRIUFile); got != "tcp-close\n"+line {
			t.Errorf("%q", got)
		}
		mustUninstall(t, Options{Root: root})
	})
}
