package stage

import (
	"os"
	"syscall"
	"unsafe"
)

// Input is what was read from standard input before the program went on: the
// beginning of a container's state, or all of it.
var Input []byte

// maxInput bounds what is read here, in bytes. A longer state is read elsewhere.
const maxInput = 1 << 16

// inputTime is how long a runtime may take to write the state, in nanoseconds;
// then it is waited for elsewhere.
const inputTime = 5_000_000

// endAtFreshStart ends the program when it is called as a createRuntime hook at
// the fresh start of a container, as it is for every container of the machine.
// The state says so. It is searched, not parsed: in a JSON string, such as an
// annotation, quotes are escaped, and a state that also has the word of a restore
// as a value anywhere is left to the parser.
func endAtFreshStart() {
	if len(os.Args) != 2 || os.Args[1] != "createRuntime" || !readInput() {
		return
	}
	if hasValue(Input, "creating") && !hasValue(Input, "stopped") {
		os.Exit(0)
	}
}

// readInput reads standard input to its end and reports whether it came to that.
func readInput() bool {
	buf := make([]byte, maxInput)
	for len(Input) < maxInput {
		if !readable() {
			return false
		}
		n, err := syscall.Read(0, buf[len(Input):])
		if err != nil || n < 0 {
			return false
		}
		if n == 0 {
			return true
		}
		Input = buf[:len(Input)+n]
	}
	return false
}

// readable waits until standard input can be read without waiting.
func readable() bool {
	fds := [1]struct {
		fd              int32
		events, revents int16
	}{{events: 1}} // POLLIN
	timeout := syscall.Timespec{Nsec: inputTime}
	n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), 1, uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
	return errno == 0 && n == 1
}

// hasValue reports whether the JSON text has a member "status" with the value.
func hasValue(text []byte, value string) bool {
	const name = `"status"`
	for i := 0; i+len(name) <= len(text); i++ {
		if string(text[i:i+len(name)]) != name {
			continue
		}
		rest := afterBlanks(text[i+len(name):])
		if len(rest) == 0 || rest[0] != ':' {
			continue
		}
		rest = afterBlanks(rest[1:])
		if len(rest) > len(value)+1 && rest[0] == '"' && string(rest[1:len(value)+1]) == value && rest[len(value)+1] == '"' {
			return true
		}
	}
	return false
}

func afterBlanks(text []byte) []byte {
	for len(text) > 0 && (text[0] == ' ' || text[0] == '\t' || text[0] == '\n' || text[0] == '\r') {
		text = text[1:]
	}
	return text
}
