package cri

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// registry serves images on loopback, where containerd speaks plain HTTP.
type registry struct {
	host      string
	dir       string
	layers    map[digest.Digest]string // files
	blobs     map[digest.Digest][]byte
	manifests map[string]v1.Descriptor // by repository
}

// serve starts a registry without images. It ends with the test.
func serve(t *testing.T) *registry {
	t.Helper()
	r := &registry{
		dir: lab.Scratch(t, "registry"), layers: map[digest.Digest]string{},
		blobs: map[digest.Digest][]byte{}, manifests: map[string]v1.Descriptor{},
	}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r
}

// addRoot adds an image made of a root folder under two names: "base", and "pause",
// whose program only sleeps.
func (r *registry) addRoot(t *testing.T, root string) {
	t.Helper()
	layer := r.layer(t, func(w *tar.Writer) error {
		return filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
			if err != nil || path == root {
				return err
			}
			return addFile(w, root, path, info)
		})
	})
	r.add(t, "base", layer, nil, "/sbin/init")
	r.add(t, "pause", layer, nil, "/bin/sleep", "infinity")
}

// addArchive adds an image made of a checkpoint archive, as people make one with
// buildah. It returns its name.
func (r *registry) addArchive(t *testing.T, path string) string {
	t.Helper()
	layer := r.layer(t, func(w *tar.Writer) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		in := tar.NewReader(f)
		for {
			header, err := in.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = w.WriteHeader(header)
			}
			if err == nil {
				_, err = io.Copy(w, in)
			}
			if err != nil {
				return err
			}
		}
	})
	r.add(t, "checkpoint", layer, map[string]string{"org.criu.checkpoint.container.name": "legacy"})
	return r.host + "/checkpoint:1"
}

// addPrograms adds the agent's image. It returns its name.
func (r *registry) addPrograms(t *testing.T) string {
	t.Helper()
	layer := r.layer(t, func(w *tar.Writer) error {
		for _, path := range []string{lab.Hook(), filepath.Join(lab.Checkout(), "bin", "autofs-restore-agent")} {
			data, err := os.ReadFile(path)
			if err == nil {
				err = w.WriteHeader(&tar.Header{Name: "usr/bin/" + filepath.Base(path), Mode: 0o755, Size: int64(len(data))})
			}
			if err == nil {
				_, err = w.Write(data)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	r.add(t, "agent", layer, nil, "/usr/bin/autofs-restore-agent")
	return r.host + "/agent:1"
}

// layer makes a layer.
func (r *registry) layer(t *testing.T, write func(w *tar.Writer) error) v1.Descriptor {
	t.Helper()
	f, err := os.CreateTemp(r.dir, "layer")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hash := sha256.New()
	w := tar.NewWriter(io.MultiWriter(f, hash))
	if err = write(w); err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatalf("layer: %v", err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	sum := digest.NewDigestFromBytes(digest.SHA256, hash.Sum(nil))
	r.layers[sum] = f.Name()
	return v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: sum, Size: info.Size()}
}

func addFile(w *tar.Writer, root, path string, info os.FileInfo) error {
	link := ""
	if info.Mode()&os.ModeSymlink != 0 {
		var err error
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	if header.Name, err = filepath.Rel(root, path); err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode()&os.ModeDevice != 0 {
		header.Devmajor, header.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	if err := w.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// add adds an image with one layer.
func (r *registry) add(t *testing.T, repository string, layer v1.Descriptor, annotations map[string]string, entrypoint ...string) {
	t.Helper()
	config := r.blob(t, v1.MediaTypeImageConfig, v1.Image{
		Platform: v1.Platform{Architecture: "amd64", OS: "linux"},
		Config:   v1.ImageConfig{Entrypoint: entrypoint, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "container=kubernetes"}},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
	})
	r.manifests[repository] = r.blob(t, v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: config, Layers: []v1.Descriptor{layer}, Annotations: annotations,
	})
}

func (r *registry) blob(t *testing.T, mediaType string, content any) v1.Descriptor {
	t.Helper()
	data, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	sum := digest.FromBytes(data)
	r.blobs[sum] = data
	return v1.Descriptor{MediaType: mediaType, Digest: sum, Size: int64(len(data))}
}

// ServeHTTP is the pulling half of the OCI distribution specification.
func (r *registry) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	path := strings.TrimPrefix(request.URL.Path, "/v2/")
	repository, rest, _ := strings.Cut(path, "/")
	kind, reference, _ := strings.Cut(rest, "/")
	switch {
	case path == "":
	case kind == "manifests" && r.manifests[repository].Digest != "":
		m := r.manifests[repository]
		w.Header().Set("Content-Type", m.MediaType)
		w.Header().Set("Docker-Content-Digest", m.Digest.String())
		w.Header().Set("Content-Length", fmt.Sprint(m.Size))
		if request.Method != http.MethodHead {
			_, _ = w.Write(r.blobs[m.Digest])
		}
	case kind == "blobs" && r.blobs[digest.Digest(reference)] != nil:
		_, _ = w.Write(r.blobs[digest.Digest(reference)])
	case kind == "blobs" && r.layers[digest.Digest(reference)] != "":
		http.ServeFile(w, request, r.layers[digest.Digest(reference)])
	default:
		http.NotFound(w, request)
	}
}
