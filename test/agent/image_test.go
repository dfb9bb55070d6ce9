package agent

import (
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// openImage unpacks the agent's image and returns the root folder of each architecture.
func openImage(t *testing.T) map[string]string {
	t.Helper()
	layout := unpack(t, archive(t))
	read := func(file string, into any) {
		data, err := os.ReadFile(filepath.Join(layout, file))
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	blob := func(d ocispec.Descriptor) string { return "blobs/sha256/" + d.Digest.Encoded() }
	var name, index ocispec.Index
	read("index.json", &name)
	if len(name.Manifests) != 1 { // an image store keeps one image of a name
		t.Fatalf("%d images have the name", len(name.Manifests))
	}
	read(blob(name.Manifests[0]), &index)
	roots := map[string]string{}
	for _, d := range index.Manifests {
		var manifest ocispec.Manifest
		var config ocispec.Image
		read(blob(d), &manifest)
		read(blob(manifest.Config), &config)
		if d.Platform.OS != "linux" || config.Architecture != d.Platform.Architecture || len(manifest.Layers) != 1 {
			t.Errorf("%+v: configuration for %s, %d layers", d.Platform, config.Architecture, len(manifest.Layers))
		}
		roots[d.Platform.Architecture] = unpack(t, filepath.Join(layout, blob(manifest.Layers[0])))
	}
	return roots
}

func unpack(t *testing.T, archive string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-C", dir, "-xf", archive).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// TestImage: each architecture has its own programs.
func TestImage(t *testing.T) {
	for architecture, root := range openImage(t) {
		machine, known := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[architecture]
		programs, err := filepath.Glob(root + "/usr/bin/*")
		if err != nil || len(programs) != 2 || !known {
			t.Errorf("%s: %v, %v", architecture, programs, err)
		}
		for _, path := range programs {
			f, err := elf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			if f.Machine != machine {
				t.Errorf("%s: %s is for %v", architecture, filepath.Base(path), f.Machine)
			}
			if _, err := os.Stat(filepath.Join(root, "licenses", filepath.Base(path))); err != nil {
				t.Error(err)
			}
		}
	}
}
