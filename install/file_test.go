package install

import (
	"os"
	"runtime/debug"
	"testing"
)

// TestReadDescriptors reads files often, as an uninstall does for containers, and leaves
// no descriptor open. filepath-securejoin 0.5.1 did until a garbage collection.
func TestReadDescriptors(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	tree, err := openTree(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()
	put(t, tree.name+"/dir/file", "x")
	read := func() {
		if text := tree.text("/dir/file"); text != "x" {
			t.Fatalf("%q", text)
		}
		if names := tree.listDir("/dir"); len(names) != 1 {
			t.Fatalf("%q", names)
		}
	}
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	read() // opens what the library keeps
	before := count()
	for range 100 {
		read()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
}
