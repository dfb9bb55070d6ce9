package lab

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// runtimeSpec returns what the command "spec" of an OCI runtime writes, with the changes
// without which systemd does not boot as PID 1 or has no automounts.
func runtimeSpec(bundle string, options Options) (*specs.Spec, error) {
	file := filepath.Join(bundle, "config.json")
	if _, err := output("sh", "-c", `cd "$0" && exec "$1" spec`, bundle, options.Runtime); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file); err != nil {
		return nil, err
	}
	spec := &specs.Spec{}
	if err := json.Unmarshal(text, spec); err != nil {
		return nil, err
	}
	spec.Root.Path, spec.Root.Readonly = options.root, false
	spec.Process.Args, spec.Process.Terminal = options.Args, false
	caps := spec.Process.Capabilities
	for _, set := range []*[]string{&caps.Bounding, &caps.Effective, &caps.Permitted} {
		// The others are for services with a mount namespace of their own.
		*set = append(*set, "CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SYS_CHROOT")
	}
	for i, m := range spec.Mounts {
		if m.Destination == "/sys/fs/cgroup" {
			spec.Mounts[i].Options = slices.DeleteFunc(m.Options, func(option string) bool { return option == "ro" })
		}
	}
	device := autofsDevice()
	spec.Linux.Devices = append(spec.Linux.Devices, device)
	spec.Linux.Resources.Devices = append(spec.Linux.Resources.Devices,
		specs.LinuxDeviceCgroup{Allow: true, Type: device.Type, Major: &device.Major, Minor: &device.Minor, Access: "rwm"})
	return spec, nil
}

// autofsDevice is the device of autofs masters.
func autofsDevice() specs.LinuxDevice {
	mode := os.FileMode(0o600)
	return specs.LinuxDevice{Path: "/dev/autofs", Type: "c", Major: 10, Minor: 235, FileMode: &mode}
}
