package cri

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
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
)

// registry serves images on loopback, where containerd speaks plain HTTP.
type registry struct {
	host      string
	layer     string // file
	blobs     map[digest.Digest][]byte
	manifests map[string]v1.Descriptor // by repository
}

// serveImages serves an image made of a root folder under two names: "base", and
// "pause", whose program only sleeps.
func serveImages(t *testing.T, root, dir string) *registry {
	t.Helper()
	r := &registry{
		layer: filepath.Join(dir, "layer.tar"), blobs: map[digest.Digest][]byte{}, manifests: map[string]v1.Descriptor{},
	}
	layer, err := archive(root, r.layer)
	if err != nil {
		t.Fatalf("layer of %s: %v", root, err)
	}
	r.add(t, "base", layer, "/sbin/init")
	r.add(t, "pause", layer, "/bin/sleep", "infinity")
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r
}

// archive writes a folder as a layer.
func archive(root, path string) (v1.Descriptor, error) {
	f, err := os.Create(path)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer f.Close()
	hash := sha256.New()
	w := tar.NewWriter(io.MultiWriter(f, hash))
	if err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil || path == root {
			return err
		}
		return addFile(w, root, path, info)
	}); err != nil {
		return v1.Descriptor{}, err
	}
	if err := w.Close(); err != nil {
		return v1.Descriptor{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return v1.Descriptor{}, err
	}
	sum := digest.NewDigestFromBytes(digest.SHA256, hash.Sum(nil))
	return v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: sum, Size: info.Size()}, nil
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
func (r *registry) add(t *testing.T, repository string, layer v1.Descriptor, entrypoint ...string) {
	t.Helper()
	config := r.blob(t, v1.MediaTypeImageConfig, v1.Image{
		Platform: v1.Platform{Architecture: "amd64", OS: "linux"},
		Config:   v1.ImageConfig{Entrypoint: entrypoint, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "container=kubernetes"}},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
	})
	r.manifests[repository] = r.blob(t, v1.MediaTypeImageManifest, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: config, Layers: []v1.Descriptor{layer},
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
	case kind == "blobs":
		http.ServeFile(w, request, r.layer)
	default:
		http.NotFound(w, request)
	}
}
