package hook

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/criuimage"
)

func TestReadImages(t *testing.T) {
	dir := t.TempDir()
	if has, err := hasAutofs(filepath.Join(dir, "absent")); has || err != nil {
		t.Errorf("an absent directory: %v, %v", has, err)
	}
	file := filepath.Join(dir, "autofs-54.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readImages(file); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file: %v", err)
	}
	if _, err := imagesHaveAutofs(dir); !errors.Is(err, criuimage.ErrNoImages) {
		t.Errorf("without mountpoint images: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "mountpoints-1.img"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	link := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) // as CRIU names it
	if has, err := hasAutofs(link); !has || err != nil {
		t.Errorf("a magic link: %v, %v", has, err)
	}
}
