package install

import (
	"encoding/json"
	"errors"
)

// errForeign is of a program that install has not put where it is: a package has,
// or a person. Two that both replace it would do so for ever.
var errForeign = errors.New("another version is there that was not installed by this command, but by a package or by hand, and is kept; " +
	"upgrade or remove it there, or choose another --prefix; nothing was written")

// owns reports whether a program is the one that install put there last.
func (r *record) owns(program []byte) bool {
	return r.Wrote && (r.Sum == "" || r.Sum == sum(program))
}

// Foreign reports whether a file is a version of this program that Install has not
// put there and does not replace. recorded is the content of [RecordFile], nil if
// there is none.
func Foreign(program, recorded []byte) bool {
	var r record
	_ = json.Unmarshal(recorded, &r) // one that cannot be read claims nothing
	return isProgram(program) && !r.owns(program)
}
