package install

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestKept changes a file after an installation: Uninstall keeps it, and the program too
// if the file calls it.
func TestKept(t *testing.T) {
	config := "/var/lib/containers/storage/overlay-containers/abc/userdata/config.json"
	for name, test := range map[string]struct {
		prepare string // shell, in the root directory, after the installation
		kept    string
		stays   string // a file that must remain
		program bool
		again   string // what to do by hand to make the next removal complete
	}{
		"a changed hook": {
			prepare: "sed -i 's/10/20/' ." + hookFile,
			kept:    "was changed: remove it by hand", stays: hookFile, program: true, again: "rm ." + hookFile,
		},
		"another hook": {
			prepare: "echo '{}' >." + hookFile,
			kept:    "was changed: remove it by hand", stays: hookFile, again: "rm ." + hookFile,
		},
		"a container with a hook": {
			prepare: "mkdir -p .$(dirname " + config + "); echo '{\"path\": \"/usr/libexec/oci/hooks.d/autofs-restore-hook\"}' >." + config,
			kept:    "1 containers of podman or CRI-O", stays: config, program: true, again: "rm ." + config,
		},
		"runc.conf": {
			prepare: "echo 'action-script=/usr/libexec/oci/hooks.d/autofs-restore-hook' >etc/criu/runc.conf",
			kept:    "/etc/criu/runc.conf calls it", stays: "/etc/criu/runc.conf", program: true, again: "rm etc/criu/runc.conf",
		},
		"runc.conf calls the script": {
			prepare: "echo 'action-script=" + script + "' >etc/criu/runc.conf",
			kept:    "/etc/criu/runc.conf calls it", stays: script, program: true, again: "rm etc/criu/runc.conf",
		},
		"an edited script": {prepare: "echo '# mine' >>." + script},
		"another script": {
			prepare: "echo '#!/bin/sh' >." + script,
			kept:    "is another file now: remove it by hand", stays: script, again: "rm ." + script,
		},
		"no script any more": {prepare: "rm ." + script},
		"containerd": {
			prepare: `echo 'base_runtime_spec = "` + BaseSpec + `"' >etc/containerd/config.toml`,
			kept:    "/etc/containerd/config.toml names it", stays: BaseSpec, program: true, again: "rm etc/containerd/config.toml",
		},
		"another program": {
			prepare: "echo '#!/bin/sh' >usr/libexec/oci/hooks.d/autofs-restore-hook",
			kept:    "is another program now", stays: "/usr/libexec/oci/hooks.d/autofs-restore-hook", again: "rm -r usr/libexec/oci",
		},
		"lines of others":        {prepare: "echo tcp-close >>etc/criu/default.conf", stays: CRIUFile},
		"a line of this program": {prepare: `echo 'action-script "/usr/libexec/oci/hooks.d/autofs-restore-hook" # twice' >>etc/criu/default.conf`},
		"something absent":       {prepare: "rm ." + hookFile + " etc/criu/default.conf"},
		"a file beside":          {prepare: "touch usr/libexec/oci/hooks.d/other", stays: "/usr/libexec/oci/hooks.d/other"},
	} {
		t.Run(name, func(t *testing.T) {
			root := machine(t, version4, nil)
			shell := func(text string) {
				t.Helper()
				if out, err := exec.Command("sh", "-ec", "cd "+root+"; "+text).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v %s", text, err, out)
				}
			}
			shell("mkdir etc/containerd; cp usr/sbin/criu usr/bin/ctr; echo '{\"ociVersion\": \"1\"}' >usr/bin/ctr.out")
			mustInstall(t, Options{Root: root, Engines: []Engine{CRIU, Podman, CRIO, Containerd}})
			shell(test.prepare)
			r := mustUninstall(t, Options{Root: root})
			if got := strings.Join(r.Kept, "\n"); (got == "") != (test.kept == "") || !strings.Contains(got, test.kept) {
				t.Errorf("kept %q, want %q", got, test.kept)
			}
			if _, err := os.Lstat(root + test.stays); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(root + "/usr/libexec/oci/hooks.d/autofs-restore-hook"); test.program != (err == nil) && name != "another program" {
				t.Errorf("the program is there: %t, want %t", err == nil, test.program)
			}
			if strings.Contains(get(t, root+CRIUFile), "autofs-restore-hook") {
				t.Errorf("CRIU still calls it: %q", get(t, root+CRIUFile))
			}
			shell(test.again)
			if r := mustUninstall(t, Options{Root: root}); len(r.Kept) > 0 {
				t.Errorf("the second time: kept %q", r.Kept)
			}
			for _, gone := range []string{RecordFile, hookFile, BaseSpec, script} {
				if _, err := os.Lstat(root + gone); err == nil {
					t.Errorf("%s is left", gone)
				}
			}
		})
	}
}

// TestEngineByEngine installs and removes for one engine after the other: a file that
// two of them read remains for the second.
func TestEngineByEngine(t *testing.T) {
	root := machine(t, version4, map[string]string{CRIUFile: "x\n"})
	only := func(e Engine) Options { return Options{Root: root, Engines: []Engine{e}} }
	unchanged(t, root, func() {
		mustInstall(t, only(CRIU))
		unchanged(t, root, func() {
			mustInstall(t, only(Podman))
			unchanged(t, root, func() {
				mustInstall(t, only(CRIO))
				mustUninstall(t, only(CRIO))
			})
			mustInstall(t, only(CRIO))
			mustUninstall(t, only(Podman))
			if get(t, root+hookFile) == "" {
				t.Error("CRI-O has no hook any more")
			}
			mustUninstall(t, only(CRIO))
		})
		mustInstall(t, only(Podman))
		mustUninstall(t, only(CRIU))
		if get(t, root+CRIUFile) != "x\n" || get(t, root+hookFile) == "" {
			t.Error("the hook was removed with the line, or the line was not")
		}
		mustUninstall(t, only(Podman))
	})
}

// TestAttributes rewrites a file, which keeps its mode, owner and extended attributes. A
// copy of the program that Install did not write remains.
func TestAttributes(t *testing.T) {
	root := machine(t, version4, map[string]string{CRIUFile: "x\n", own: ""})
	copyFile(t, program, root+own)
	if err := os.Chmod(root+own, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root+CRIUFile, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(root+CRIUFile, 12, 34); err != nil {
		t.Fatal(err)
	}
	unchanged(t, root, func() {
		mustInstall(t, Options{Root: root})
		info, err := exec.Command("stat", "-c", "%a %u %g", root+CRIUFile).Output()
		if string(info) != "640 12 34\n" {
			t.Errorf("%s, %v", info, err)
		}
		r := mustUninstall(t, Options{Root: root})
		if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "install did not write it") {
			t.Errorf("%q", r.Notes)
		}
	})
}

// TestDisk has disks on which a write fails: the files are as before.
func TestDisk(t *testing.T) {
	for name, test := range map[string]struct{ prepare, want string }{
		"full":            {"mount -t tmpfs -o size=64k none $R/usr/libexec", "no space left on device"},
		"full at the end": {"mount -t tmpfs -o size=8k,nr_inodes=2 none $R/usr/share/containers/oci/hooks.d", "no space left on device"},
		"read-only /usr":  {"mount --bind $R/usr $R/usr; mount -o remount,bind,ro $R/usr", "--prefix puts the program elsewhere"},
		"read-only /etc":  {"mount --bind $R/etc $R/etc; mount -o remount,bind,ro $R/etc", "read-only file system"},
		"a mounted file":  {"mount --bind $R/etc/criu/default.conf $R/etc/criu/default.conf", "invalid cross-device link"},
	} {
		t.Run(name, func(t *testing.T) {
			root := machine(t, version4, map[string]string{CRIUFile: "x\n", HooksDirectory + "/x": "", "/usr/bin/podman": ""})
			_ = os.Chmod(root+"/usr/bin/podman", 0o755)
			script := "set -e; " + test.prepare + `
list() { (cd $R; find . -printf '%p %y %m %U %G %l\n' | sort; find . -type f -exec cksum {} +); }
list >$R.before; "$0" install --root $R --engine all 2>&1 && echo installed
list >$R.after; diff $R.before $R.after`
			cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, program)
			cmd.Env = append(os.Environ(), "R="+root)
			out, err := cmd.CombinedOutput()
			os.Remove(root + ".before")
			os.Remove(root + ".after")
			if strings.Contains(string(out), "installed") || !strings.Contains(string(out), test.want) {
				t.Errorf("want a refusal with %q: %v\n%s", test.want, err, out)
			}
			if strings.Contains(string(out), "\n<") || strings.Contains(string(out), "\n>") {
				t.Errorf("the files are not as before:\n%s", out)
			}
		})
	}
}
