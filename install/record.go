package install

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
)

// record is what [RecordFile] holds.
type record struct {
	// Program is the path of the program, and Wrote whether it was put there: a
	// package has its own way.
	Program string `json:"program"`
	Wrote   bool   `json:"program_written"`
	// Sum is of the program that was put there; "" in a record of a version before
	// 0.6, which did not note it.
	Sum string `json:"program_fnv64a,omitempty"`
	// Script is whether the action script beside it was put there.
	Script bool `json:"script_written,omitempty"`
	// Line is the action-script line.
	Line *recordedLine `json:"action_script,omitempty"`
	// ForceIrmap is the line with that option.
	ForceIrmap *recordedLine `json:"force_irmap,omitempty"`
	// Files are hooks.d files and the like.
	Files []recordedFile `json:"files,omitempty"`
	// Folders were made, the upper ones first.
	Folders []string `json:"folders,omitempty"`
}

// recordedLine says how the line came into its file.
type recordedLine struct {
	File string `json:"file"`
	// Created is whether there was no file, and Newline whether the file's last
	// line had to be ended.
	Created bool `json:"created,omitempty"`
	Newline bool `json:"newline,omitempty"`
}

// recordedFile is a file that is ours as long as it has this content.
type recordedFile struct {
	Engine Engine `json:"engine"`
	Path   string `json:"path"`
	Sum    string `json:"fnv64a"`
}

// sum tells whether somebody has changed a file. It need not withstand anybody
// who wants to deceive: only root can write there.
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
		return r, fmt.Errorf("%s: %w; remove it if you do not know what it is", t.show(RecordFile), err)
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

// file finds what is noted of a path for an engine, or for any with "".
func (r *record) file(e Engine, path string) *recordedFile {
	for i := range r.Files {
		if f := &r.Files[i]; f.Path == path && (e == "" || f.Engine == e) {
			return f
		}
	}
	return nil
}

// set notes a file.
func (r *record) set(e Engine, path, sum string) {
	if f := r.file(e, path); f != nil {
		f.Sum = sum
		return
	}
	r.Files = append(r.Files, recordedFile{Engine: e, Path: path, Sum: sum})
}
