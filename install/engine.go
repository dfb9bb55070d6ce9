package install

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
)

// HooksDirectory is where podman and CRI-O look for hooks unless their
// configuration names other folders.
const HooksDirectory = "/usr/share/containers/oci/hooks.d"

// BaseSpec is the file for containerd's base_runtime_spec.
const BaseSpec = "/etc/containerd/autofs-restore-hook.json"

// configuration lists the files that may set hooks_dir, the last one wins.
func (t *tree) configuration(e Engine) []string {
	files, folder := []string{"/usr/share/containers/containers.conf", "/etc/containers/containers.conf"}, "/etc/containers/containers.conf.d"
	if e == CRIO {
		files, folder = []string{"/etc/crio/crio.conf"}, "/etc/crio/crio.conf.d"
	}
	for _, name := range t.names(folder) {
		files = append(files, folder+"/"+name)
	}
	return files
}

// hooksDirectory is the folder that an engine reads, and the file that says so,
// "" if it is the default one.
func (t *tree) hooksDirectory(e Engine) (dir, file string, err error) {
	var list []string
	for _, name := range t.configuration(e) {
		if l := hooksDirectories(t.text(name)); l != nil {
			list, file = l, name
		}
	}
	if file == "" || slices.Contains(list, HooksDirectory) {
		return HooksDirectory, "", nil
	}
	for i := len(list) - 1; i >= 0; i-- {
		if path.IsAbs(list[i]) && strings.IndexFunc(list[i], func(r rune) bool { return r < ' ' }) < 0 {
			return path.Clean(list[i]), file, nil
		}
	}
	return "", "", fmt.Errorf("%s: hooks_dir = %q: %s reads hooks from no folder; add %s", t.show(file), list, e, HooksDirectory)
}

// hooks renders the hooks.d files of an engine, by their paths.
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
		note = fmt.Sprintf("%s reads hooks from %s, as %s says", e, dir, t.show(from))
	}
	return files, note, nil
}

// isHook reports whether a file is one of ours for some path of the program, as
// this version writes it.
func isHook(name string, data []byte) bool {
	var h struct {
		Hook struct {
			Path string `json:"path"`
		} `json:"hook"`
	}
	if json.Unmarshal(data, &h) != nil {
		return false
	}
	files, err := manifests.Hooks(h.Hook.Path)
	return err == nil && slices.ContainsFunc(files, func(f manifests.File) bool {
		return f.Name == path.Base(name) && f.Data == string(data)
	})
}

// baseSpec makes the specification that containerd is to begin with: its own
// default with the hooks in it. It has to be a whole one, since it takes the
// place of the default.
func (t *tree) baseSpec(ctx context.Context, program string) ([]byte, error) {
	ctr := t.find("ctr")
	if len(ctr) == 0 {
		return nil, fmt.Errorf("containerd: no ctr in %s, to ask for its default specification", t.name)
	}
	out, err := t.run(ctx, ctr[0], "oci", "spec")
	if err != nil {
		return nil, fmt.Errorf("containerd: default specification: %w", err)
	}
	var spec map[string]any
	if err := json.Unmarshal(out, &spec); err != nil || spec["ociVersion"] == nil {
		return nil, fmt.Errorf("containerd: ctr oci spec wrote no specification (%w)", err)
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

// containerdNote says what the administrator adds to containerd's configuration,
// whose format depends on its version.
func (t *tree) containerdNote(ctx context.Context) string {
	plugin := "'io.containerd.cri.v1.runtime'"
	if found := t.find("containerd"); len(found) > 0 {
		out, err := t.run(ctx, found[0], "--version")
		if v, ok := ParseVersion(string(out)); err == nil && ok && v[0] < 2 {
			plugin = `"io.containerd.grpc.v1.cri"`
		}
	}
	return fmt.Sprintf("containerd: add to /etc/containerd/config.toml, and restart it:\n"+
		"  [plugins.%s.containerd.runtimes.runc]\n    base_runtime_spec = %q", plugin, BaseSpec)
}

// found lists the engines of the machine, without CRIU.
func (t *tree) found() []Engine {
	var list []Engine
	for _, e := range []struct {
		engine  Engine
		program string
	}{{Podman, "podman"}, {CRIO, "crio"}, {Containerd, "containerd"}} {
		if len(t.find(e.program)) > 0 {
			list = append(list, e.engine)
		}
	}
	return list
}
