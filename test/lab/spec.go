package lab

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// capabilities are all except CAP_SYS_RESOURCE, which virtual machines with a limited
// bounding set do not have either; CRIU restores the set that it finds.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
	"CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_SETFCAP",
}

// withoutStackGuards makes glibc fall back to guard pages that it protects.
// CRIU before 4.2 cannot dump those that glibc 2.42 makes beneath the stacks of
// threads with MADV_GUARD_INSTALL: "Can't splice all pages to pipe".
func withoutStackGuards() *specs.LinuxSeccomp {
	const guardInstall = 102 // Linux 6.13
	invalid := uint(unix.EINVAL)
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls: []specs.LinuxSyscall{{
			Names: []string{"madvise"}, Action: specs.ActErrno, ErrnoRet: &invalid,
			Args: []specs.LinuxSeccompArg{{Index: 2, Value: guardInstall, Op: specs.OpEqualTo}},
		}},
	}
}

// seccomp is the filter of a container, nil if it needs none.
func seccomp(options Options) *specs.LinuxSeccomp {
	if options.Seccomp != nil {
		return options.Seccomp
	}
	if options.Systemd == "sid" && !CRIUAtLeast(4, 2) {
		return withoutStackGuards()
	}
	return nil
}

// writeSpec writes the bundle's config.json.
func writeSpec(bundle, id string, options Options) error {
	spec := labSpec(options)
	if options.Bare && options.Runtime != "podman" {
		var err error
		if spec, err = runtimeSpec(bundle, options); err != nil {
			return err
		}
	}
	spec.Hooks = options.Hooks
	spec.Mounts = append(spec.Mounts, options.Mounts...)
	spec.Linux.CgroupsPath = "/" + id
	if options.Propagation != "" {
		spec.Linux.RootfsPropagation = options.Propagation
	}
	if options.HostCgroups {
		spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
	}
	if filter := seccomp(options); filter != nil {
		spec.Linux.Seccomp = filter
	}
	return saveSpec(bundle, spec)
}

func saveSpec(bundle string, spec *specs.Spec) error {
	text, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600)
}

// labSpec is the specification of a container in which systemd runs as PID 1 and that
// may have autofs masters (device 10:235, CAP_SYS_ADMIN, no user namespace).
func labSpec(options Options) *specs.Spec {
	has := slices.DeleteFunc(slices.Clone(capabilities), func(name string) bool { return slices.Contains(options.Without, name) })
	return &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Args:         options.Args,
			Cwd:          "/",
			Env:          []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "container=" + options.Runtime},
			Capabilities: &specs.LinuxCapabilities{Bounding: has, Effective: has, Permitted: has},
		},
		Root:     &specs.Root{Path: options.root},
		Hostname: "laboratory",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "nodev", "mode=1777"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "rw"}},
			{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=755"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=1777"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace, Path: options.PIDNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.CgroupNamespace},
			},
			Devices: []specs.LinuxDevice{autofsDevice()},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
				{Allow: true, Type: "a", Access: "rwm"},
			}},
		},
	}
}
