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

// baseSpec returns the base specification for containerd: its default with the hooks
// added. It has to be complete, since it replaces the default.
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

// containerdNote returns what the administrator adds to containerd's configuration,
// whose format depends on its version.
func (t *tree) containerdNote(ctx context.Context) string {
	plugin := "'io.containerd.cri.v1.runtime'"
	if found := t.lookPath("containerd"); len(found) > 0 {
		if v, err := t.programVersion(ctx, found[0]); err == nil && v.Less(Version{2}) {
			plugin = `"io.containerd.grpc.v1.cri"`
		}
	}
	return fmt.Sprintf("containerd: add to /etc/containerd/config.toml, and restart it:\n"+
		"  [plugins.%s.containerd.runtimes.runc]\n    base_runtime_spec = %q", plugin, BaseSpec)
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
