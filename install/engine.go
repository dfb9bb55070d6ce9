package install

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
)

// HooksDirectory is where podman and CRI-O look for hooks unless their configuration
// names other directories.
const HooksDirectory = "/usr/share/containers/oci/hooks.d"

// BaseSpec is the file for containerd's base_runtime_spec.
const BaseSpec = "/etc/containerd/autofs-restore-hook.json"

// configFiles lists the files that may set hooks_dir; the last one wins.
func (t *tree) configFiles(e Engine) []string {
	files, dropIns := []string{"/usr/share/containers/containers.conf", "/etc/containers/containers.conf"}, "/etc/containers/containers.conf.d"
	if e == CRIO {
		files, dropIns = []string{"/etc/crio/crio.conf"}, "/etc/crio/crio.conf.d"
	}
	for _, name := range t.listDir(dropIns) {
		files = append(files, dropIns+"/"+name)
	}
	return files
}

// hooksDirectory returns the directory that an engine reads, and the file that sets it,
// "" for the default.
func (t *tree) hooksDirectory(e Engine) (dir, file string, err error) {
	var list []string
	for _, name := range t.configFiles(e) {
		if l := hooksDirectories(t.text(name)); l != nil {
			list, file = l, name
		}
	}
	if file == "" || slices.Contains(list, HooksDirectory) {
		return HooksDirectory, "", nil
	}
	for _, dir := range slices.Backward(list) {
		if path.IsAbs(dir) && strings.IndexFunc(dir, unicode.IsControl) < 0 {
			return path.Clean(dir), file, nil
		}
	}
	return "", "", fmt.Errorf("%s: hooks_dir = %q: %s reads hooks from no directory; add %s", t.show(file), list, e, HooksDirectory)
}

// hooks renders the hooks.d files of an engine, with their paths as names.
func (t *tree) hooks(e Engine, program string) (files []manifests.File, note string, err error) {
	dir, from, err := t.hooksDirectory(e)
	if err != nil {
		return nil, "", err
	}
	if files, err = manifests.Hooks(program); err != nil {
		return nil, "", err
	}
	for i := range files {
		files[i].Name = dir + "/" + files[i].Name
	}
	if from != "" {
		note = fmt.Sprintf("%s reads hooks from %s, as set in %s", e, dir, t.show(from))
	}
	return files, note, nil
}

// hookPath returns the program that a hooks.d file calls.
func hookPath(data []byte) (string, error) {
	var h struct {
		Hook struct {
			Path string `json:"path"`
		} `json:"hook"`
	}
	err := json.Unmarshal(data, &h)
	return h.Hook.Path, err
}

// isHook reports whether a file is what this version writes as hooks.d file, for some
// path of the program.
func isHook(name string, data []byte) bool {
	program, err := hookPath(data)
	if err != nil {
		return false
	}
	files, err := manifests.Hooks(program)
	return err == nil && slices.ContainsFunc(files, func(f manifests.File) bool {
		return f.Name == path.Base(name) && f.Data == string(data)
	})
}

// baseSpec returns the base specification for containerd: its default with the hooks,
// and with a cgroup namespace where control groups are of version 2. It has to be
// complete, since it replaces the default. containerd's CRI gives that namespace to
// containers that are not privileged only; a privileged systemd without one watches its
// control groups by the container's id, and CRIU cannot restore it under another.
func (t *tree) baseSpec(ctx context.Context, program string) ([]byte, error) {
	ctr := t.lookPath("ctr")
	if len(ctr) == 0 {
		return nil, fmt.Errorf("containerd: no ctr in %s, which prints the default specification", t.name)
	}
	out, err := t.run(ctx, nil, ctr[0], "oci", "spec")
	if err != nil {
		return nil, fmt.Errorf("containerd: default specification: %w", err)
	}
	var spec map[string]any
	if err := json.Unmarshal(out, &spec); err != nil || spec["ociVersion"] == nil {
		return nil, fmt.Errorf("containerd: ctr oci spec wrote no specification: %.200q", out)
	}
	if process, ok := spec["process"].(map[string]any); ok {
		delete(process, "rlimits") // containers of Kubernetes do not have these
	}
	if linux, ok := spec["linux"].(map[string]any); ok && t.hasCgroup2() {
		list, _ := linux["namespaces"].([]any)
		if !slices.ContainsFunc(list, isCgroupNamespace) {
			linux["namespaces"] = append(list, map[string]any{"type": cgroupNamespace})
		}
	}
	hooks, _ := spec["hooks"].(map[string]any)
	if hooks == nil {
		hooks = map[string]any{}
	}
	for _, stage := range []string{"createRuntime", "poststart"} {
		list, _ := hooks[stage].([]any)
		hooks[stage] = append(list, map[string]any{
			"path": program, "args": []string{programName, stage}, "timeout": 10,
		})
	}
	spec["hooks"] = hooks
	data, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("containerd: specification: %w", err)
	}
	return append(data, '\n'), nil
}

// cgroupNamespace is the type of that namespace in a specification.
const cgroupNamespace = "cgroup"

func isCgroupNamespace(entry any) bool {
	n, _ := entry.(map[string]any)
	return n["type"] == cgroupNamespace
}

// hasCgroup2 reports whether control groups are of version 2 in the tree, as far as it
// has them mounted.
func (t *tree) hasCgroup2() bool {
	dir, err := t.openDir("/sys/fs/cgroup")
	if err != nil {
		return false
	}
	defer dir.Close()
	_, err = dir.Stat("cgroup.controllers") // in each directory of version 2
	return err == nil
}

// containerdNote returns what the administrator adds to containerd's configuration,
// whose format depends on its version. The handler is that of manifests/containerd: as
// that of every pod the specification would change privileged pods that look at the
// control groups of the host, as monitoring does.
func (t *tree) containerdNote(ctx context.Context) string {
	plugin := "'io.containerd.cri.v1.runtime'"
	if found := t.lookPath("containerd"); len(found) > 0 {
		if v, err := t.programVersion(ctx, found[0]); err == nil && v.Less(Version{2}) {
			plugin = `"io.containerd.grpc.v1.cri"`
		}
	}
	return fmt.Sprintf("containerd: add to /etc/containerd/config.toml, and restart it:\n"+
		"  [plugins.%[1]s.containerd.runtimes.autofs]\n    runtime_type = \"io.containerd.runc.v2\"\n    base_runtime_spec = %[2]q\n"+
		"Give it the options of your handler runc. Where the kubelet uses systemd for control groups, as with kubeadm, these are at least\n"+
		"  [plugins.%[1]s.containerd.runtimes.autofs.options]\n    SystemdCgroup = true\n"+
		"Pods choose it with runtimeClassName: a RuntimeClass with the handler autofs.", plugin, BaseSpec)
}

// engines lists the engines of the machine, without CRIU.
func (t *tree) engines() []Engine {
	var list []Engine
	for _, e := range []Engine{Podman, CRIO, Containerd} {
		if len(t.lookPath(string(e))) > 0 {
			list = append(list, e)
		}
	}
	return list
}
