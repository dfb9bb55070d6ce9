package lab

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// Marker is the name of a file that only the automounted file system has, and not the
// folder beneath it. Its content is the path of the mount point.
const Marker = "marker"

// Automount is an automount unit of the container, with the mount unit that it
// starts.
type Automount struct {
	Path string
	Type string // of the file system: "bind" or "tmpfs"
}

// The mount points of the container's automounts, with their states at the checkpoint.
const (
	Idle     = "/mnt/idle"       // never touched
	Blank    = "/mnt/with blank" // never touched, a blank in its path
	Covered  = "/mnt/covered"    // a service with BindsTo= on it works in it
	Stacked  = "/mnt/stacked"    // two covers, each with another mount in a folder
	Binfmt   = "/proc/sys/fs/binfmt_misc"
	Direct   = "/direct/one" // automount, direct map
	Direct2  = "/direct/two" // automount, direct map
	Indirect = "/indirect"   // automount, indirect map: key "active" is mounted
)

// SystemdAutomounts are those of the container's systemd, without binfmt_misc,
// whose units Debian ships.
var SystemdAutomounts = []Automount{
	{Path: Idle, Type: "bind"},
	{Path: Blank, Type: "bind"},
	{Path: Covered, Type: "tmpfs"},
	{Path: Stacked, Type: "tmpfs"},
}

// masked units would run as another user, which CRIU may not dump without
// CAP_SYS_RESOURCE, or use kernel objects that CRIU does not know.
var masked = []string{
	"dbus.service", "dbus.socket", "systemd-logind.service",
	"systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket",
	"systemd-journald-audit.socket", "systemd-journal-flush.service",
	"dev-hugepages.mount", "dev-mqueue.mount",
	"sys-fs-fuse-connections.mount", "sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
	"console-getty.service", "getty.target", "getty-static.service", "systemd-ask-password-wall.path",
	"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer",
	"systemd-tmpfiles-clean.timer", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
	"e2scrub_reap.service",
}

// services are the container's services that a repair must not affect.
var services = map[string]string{
	// With BindsTo= on a cover, its working directory and an open file in it.
	"worker.service": `[Unit]
BindsTo=mnt-covered.mount
After=mnt-covered.mount
[Service]
WorkingDirectory=/mnt/covered
ExecStart=/bin/sh -c 'echo /mnt/covered >marker; exec 7>>open-file; echo before >&7; exec sleep infinity'
`,
	"private-mounts.service": `[Service]
PrivateMounts=yes
ExecStart=/bin/sleep infinity
`,
	"mount-flags-private.service": `[Service]
MountFlags=private
ExecStart=/bin/sleep infinity
`,
	"mount-flags-shared.service": `[Service]
MountFlags=shared
ExecStart=/bin/sleep infinity
`,
}

// files returns the content of the container's own files. With plain, there is
// no automount of any kind.
func files(plain bool) map[string]string {
	units := "/etc/systemd/system/"
	out := map[string]string{
		"/etc/hostname":   "laboratory\n",
		"/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
		"/etc/fstab":      "",
		// systemd watches it, and CRIU cannot find the target that the link has in
		// a container without time zones again by its path.
		"/etc/localtime": "",
	}
	// With shared mounts the credentials' ramfs would be left in every namespace,
	// and CRIU cannot dump a ramfs.
	for _, unit := range []string{"systemd-sysusers.service", "systemd-tmpfiles-setup.service", "systemd-sysctl.service", "systemd-tmpfiles-setup-dev.service"} {
		out[units+unit+".d/credentials.conf"] = "[Service]\nLoadCredential=\nSetCredential=\n"
	}
	if plain {
		return out
	}
	for name, text := range services {
		out[units+name] = text
	}
	for _, a := range SystemdAutomounts {
		out[units+UnitName(a.Path, "automount")] = fmt.Sprintf("[Automount]\nWhere=%s\n", a.Path)
		what, kind, options := "tmpfs", "tmpfs", "size=1m"
		if a.Type == "bind" {
			what, kind, options = source(a.Path), "none", "bind"
			out[what+"/"+Marker] = a.Path + "\n"
		}
		out[units+UnitName(a.Path, "mount")] = fmt.Sprintf("[Mount]\nWhat=%s\nWhere=%s\nType=%s\nOptions=%s\n", what, a.Path, kind, options)
	}
	// A long timeout: nothing expires while a test runs.
	out["/etc/auto.master"] = "/- /etc/auto.direct --timeout=3600\n" + Indirect + " /etc/auto.indirect --timeout=3600\n"
	out["/etc/auto.direct"] = entry(Direct, Direct) + entry(Direct2, Direct2)
	out["/etc/auto.indirect"] = entry("active", Indirect+"/active") + entry("idle", Indirect+"/idle")
	for _, path := range []string{Direct, Direct2, Indirect + "/active", Indirect + "/idle"} {
		out[source(path)+"/"+Marker] = path + "\n"
	}
	return out
}

// withoutMountRateLimit adds a configuration of systemd (src/core/mount.c, mount_enumerate).
func withoutMountRateLimit(files map[string]string) map[string]string {
	all := map[string]string{"/etc/systemd/system.conf.d/mounts.conf": "[Manager]\nManagerEnvironment=SYSTEMD_DEFAULT_MOUNT_RATE_LIMIT_BURST=100000\n"}
	maps.Copy(all, files)
	return all
}

// entry is a line of an automount map.
func entry(key, path string) string {
	return fmt.Sprintf("%s -fstype=bind :%s\n", key, source(path))
}

// source returns the folder of a bind mount at a path.
func source(path string) string {
	return "/srv" + strings.ReplaceAll(path, " ", "_")
}

// wanted returns the units that the container starts, besides Debian's.
func wanted(plain bool) []string {
	if plain {
		return nil
	}
	units := []string{"/lib/systemd/system/autofs.service"}
	for name := range services {
		units = append(units, "/etc/systemd/system/"+name)
	}
	for _, a := range SystemdAutomounts {
		units = append(units, "/etc/systemd/system/"+UnitName(a.Path, "automount"))
	}
	return units
}

// writeContent writes the container's own files into its root folder.
func writeContent(root string, plain bool, extra map[string]string) error {
	units := filepath.Join(root, "etc/systemd/system")
	mask := masked
	if plain {
		mask = append([]string{"autofs.service", "proc-sys-fs-binfmt_misc.automount"}, masked...)
	}
	for _, name := range mask {
		if err := link("/dev/null", filepath.Join(units, name)); err != nil {
			return err
		}
	}
	for _, unit := range wanted(plain) {
		if err := link(unit, filepath.Join(units, "multi-user.target.wants", filepath.Base(unit))); err != nil {
			return err
		}
	}
	if err := link("/lib/systemd/system/multi-user.target", filepath.Join(units, "default.target")); err != nil {
		return err
	}
	for _, set := range []map[string]string{files(plain), extra} {
		for path, text := range set {
			if err := replaceFile(filepath.Join(root, path), text); err != nil {
				return err
			}
		}
	}
	return nil
}

// replaceFile replaces a file without writing through a hard link to the cached tree.
func replaceFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func link(target, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// UnitName returns the result of systemd-escape --path for a path, with a suffix.
func UnitName(path, suffix string) string {
	var b strings.Builder
	for _, c := range []byte(strings.Trim(path, "/")) {
		switch {
		case c == '/':
			b.WriteByte('-')
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == ':', c == '_', c == '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String() + "." + suffix
}
