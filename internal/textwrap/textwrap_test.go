package textwrap

import "testing"

func TestWrap(t *testing.T) {
	for text, want := range map[string]string{
		"one two three four":      "  one two\n  three\n  four\n",
		"12345678 1234 567":       "  12345678\n  1234 567\n",
		"":                        "\n",
		"averyveryverylongword x": "  averyveryverylongword\n  x\n",
		"a\n\n  b  c":             "  a\n\n    b  c\n",
		"äääää ööööö":             "  äääää\n  ööööö\n",
		"äääa öö":                 "  äääa öö\n",
	} {
		if got := Wrap(text, 10, "  "); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := Wrap("a b", 3, ""); got != "a b\n" {
		t.Errorf("no indentation: %q", got)
	}
}
