package install

import (
	"bytes"
	"testing"
)

// FuzzConfiguration adds the line to any text and removes it: nothing else changes.
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
				return // the removal takes that one, too
			}
		}
		if back := replaceLines(with, callsAny(program), "", newline); !bytes.Equal(back, text) {
			t.Fatalf("%q became %q", text, back)
		}
	})
}
