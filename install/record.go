package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
)

// record is the content of [RecordFile].
type record struct {
	Program string `json:"program"` // its path
	// ProgramWritten is whether Install wrote the program, rather than a package.
	ProgramWritten bool `json:"program_written"`
	// ProgramSum is the checksum of the written program.
	ProgramSum string `json:"program_fnv64a,omitempty"`
	// ScriptWritten is whether Install wrote the action script next to the program.
	ScriptWritten bool `json:"script_written,omitempty"`
	// ScriptLine is the action-script line in CRIU's configuration.
	ScriptLine *recordedLine `json:"action_script,omitempty"`
	// ForceIrmap is the line with that option.
	ForceIrmap *recordedLine `json:"force_irmap,omitempty"`
	// Files are hooks.d files and containerd's base specification.
	Files []recordedFile `json:"files,omitempty"`
	// Directories were created, parents first.
	Directories []string `json:"folders,omitempty"`
}

// recordedLine describes how a line was added to its file.
type recordedLine struct {
	File string `json:"file"`
	// Created is whether the file did not exist, Newline whether its last line had no
	// newline.
	Created bool `json:"created,omitempty"`
	Newline bool `json:"newline,omitempty"`
}

// recordedFile is a written file. It is removed only while it has this checksum.
type recordedFile struct {
	Engine Engine `json:"engine"`
	Path   string `json:"path"`
	Sum    string `json:"fnv64a"`
}

// sum returns a checksum that detects edits. It need not resist forgery: only root can
// write to these files.
func sum(data []byte) string {
	h := fnv.New64a()
	h.Write(data)
	return strconv.FormatUint(h.Sum64(), 16)
}

func readRecord(t *tree) (record, error) {
	var r record
	f, err := t.readText(RecordFile)
	if err != nil || f == nil {
		return r, err
	}
	if err := json.Unmarshal(f.data, &r); err != nil {
		return r, fmt.Errorf("%s: %w; remove the file if it is not from this program", t.show(RecordFile), err)
	}
	return r, nil
}

func (r *record) encode() ([]byte, error) {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return append(data, '\n'), nil
}

// file returns the entry of a path for an engine, or for any engine with "".
func (r *record) file(e Engine, path string) *recordedFile {
	for i := range r.Files {
		if f := &r.Files[i]; f.Path == path && (e == "" || f.Engine == e) {
			return f
		}
	}
	return nil
}

// setFile adds or updates the entry of a path.
func (r *record) setFile(e Engine, path, sum string) {
	if f := r.file(e, path); f != nil {
		f.Sum = sum
		return
	}
	r.Files = append(r.Files, recordedFile{Engine: e, Path: path, Sum: sum})
}

// errForeign reports a program that a package or the administrator owns. Two owners
// that both replace it would do so forever.
var errForeign = errors.New("another version is there that was not installed by this command, but by a package or by hand, and is kept; " +
	"upgrade or remove it there, or choose another --prefix; nothing was written")

// owns reports whether the program is the one that Install wrote last.
func (r *record) owns(program []byte) bool {
	return r.ProgramWritten && r.ProgramSum == sum(program)
}

// IsForeign reports whether a file is a version of this program that Install did not
// write and does not replace. recorded is the content of [RecordFile], nil without one.
func IsForeign(program, recorded []byte) bool {
	var r record
	_ = json.Unmarshal(recorded, &r) // an unreadable record owns nothing
	return isProgram(program) && !r.owns(program)
}
