package install

import (
	"bytes"
	"testing"
)

// FuzzConfiguration puts our line into any text and takes it out again: nothing
// else changes.
func FuzzConfiguration(f *testing.F) {
	for _, text := range []string{"", "\n", "# mine\ntcp-established", "action-script /other\n\n", "action-script=\"/a b\"\r\n", "action-script\n"} {
		f.Add([]byte(text))
	}
	const program = "/usr/libexec/oci/hooks.d/autofs-restore-hook"
	f.Fuzz(func(t *testing.T, text []byte) {
		before := ActionScripts(string(text))
		with, newline := appendLine(text, "action-script "+program+"\n")
		after := ActionScripts(string(with))
		if len(after) != len(before)+1 || after[len(after)-1] != program {
			t.Fatalf("%q: action scripts %q, then %q", text, before, after)
		}
		for _, s := range before {
			if s == program {
				return // it was there: taking ours out takes that one, too
			}
		}
		if back := replaceLines(with, []string{program}, "", newline); !bytes.Equal(back, text) {
			t.Fatalf("%q became %q", text, back)
		}
	})
}
