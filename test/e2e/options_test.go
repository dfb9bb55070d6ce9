package e2e

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// extraOptions are options that CRIU drops, by the path of the unit that has them.
var extraOptions = map[string]string{lab.Idle: "strictexpire", lab.Covered: "ignore", lab.Stacked: "strictexpire,ignore"}

// TestExtraOptions preserves mounts of units with ExtraOptions=: all options of a mount
// are as before, except those that name processes and files.
func TestExtraOptions(t *testing.T) {
	requireHook(t)
	files := map[string]string{}
	for path, extra := range extraOptions {
		files["/etc/systemd/system/"+lab.UnitName(path, "automount")+".d/extra.conf"] = "[Automount]\nExtraOptions=" + extra + "\n"
	}
	c := lab.Start(t, lab.Options{Files: files})
	c.Populate(t)
	before := withoutFD(autofsOptions(c.Forest(t)))
	for path, extra := range extraOptions {
		if m := lab.Autofs(t, c.PID)[path]; m == nil || !strings.Contains(m.VFSOptions+",", ","+extra+",") {
			t.Fatalf("%s: %+v, want the options %s", path, m, extra)
		}
	}
	s := checkpointOf(t, c)
	r := restoreWithHook(t, s, lab.RestoreOptions{})
	checkPreserved(t, r)
	for _, change := range lab.Changes(before, withoutFD(autofsOptions(r.Forest(t)))) {
		t.Errorf("options: changed since the checkpoint: %s", change)
	}
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
}

// TestHostileDescriptor restores images with a high descriptor number. If a process
// opened it, the kernel would allocate a table of that size for it and for every process
// that it starts: 1 GiB each for the number 2^27, where the limit allows it.
func TestHostileDescriptor(t *testing.T) {
	requireHook(t)
	const high = 16000 // below the hard limit of some machines, 20,000
	s := checkpoint(t)
	images := lab.Scratch(t, "images-descriptor")
	if err := os.CopyFS(images, os.DirFS(s.Images)); err != nil {
		t.Fatal(err)
	}
	for _, file := range matches(t, images, "autofs-*.img") {
		nameDescriptor(t, file, high)
	}
	lab.InstallActionScript(t, lab.Hook())
	r := s.Restore(t, lab.RestoreOptions{Images: images})
	checkPreserved(t, r)
	for path, m := range lab.Autofs(t, r.PID) {
		o, err := autofs.ParseOptions(m.VFSOptions)
		if err != nil {
			t.Fatal(err)
		}
		if m.Source == "systemd-1" && o.FD >= 1024 {
			t.Errorf("%s: made with descriptor %d", path, o.FD)
		}
	}
	r.CheckAnswers(t, lab.Accesses)
}

// nameDescriptor writes another number into the image of an autofs superblock that
// PID 1 serves.
func nameDescriptor(t *testing.T, file string, number uint64) {
	t.Helper()
	const head = 8 // two magic numbers, then the length of the only record
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	record := data[head+4:]
	const fd, group = 1 << 3, 2 << 3 // the first two fields, both varints
	_, n := binary.Uvarint(record[1:])
	if record[0] != fd || n <= 0 {
		t.Fatalf("%s: does not begin with its descriptor: %x", file, record)
	}
	if !bytes.HasPrefix(record[1+n:], []byte{group, 1}) {
		return
	}
	changed := append(binary.AppendUvarint([]byte{fd}, number), record[1+n:]...)
	data = binary.NativeEndian.AppendUint32(data[:head:head], uint32(len(changed)))
	if err := os.WriteFile(file, append(data, changed...), 0o600); err != nil {
		t.Fatal(err)
	}
}
