package systemd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// message is a message with a body of any type, also of one that no program sends.
func message(kind byte, signature string, body []byte) []byte {
	fields := append([]byte("\x05\x01u\x00\x01\x00\x00\x00\x08\x01g\x00"), byte(len(signature)))
	fields = append(append(fields, signature...), 0)
	text := binary.LittleEndian.AppendUint32([]byte{'l', kind, 0, 1}, uint32(len(body)))
	text = binary.LittleEndian.AppendUint32(text, 1)
	text = binary.LittleEndian.AppendUint32(text, uint32(len(fields)))
	text = append(text, fields...)
	return append(append(text, make([]byte, (8-len(fields)%8)%8)...), body...)
}

// TestHostileReplies: a systemd cannot make the program decode what it does not ask for. An
// array of empty structures made it use 900 MB of memory in each second.
func TestHostileReplies(t *testing.T) {
	empty := []byte("\x08\x00\x00\x00\x00\x00\x00\x00") // an array of 8 bytes, if its elements take any
	inHeader := message(2, "v", []byte("\x01s\x00\x00\x01\x00\x00\x00x\x00"))
	copy(inHeader[16+9:], "\x03a()")
	for name, text := range map[string][]byte{
		"an array without end":             message(2, "a()", empty),
		"the same in an error":             message(3, "a()", empty),
		"the same in a value":              message(2, "v", append([]byte("\x03a()\x00\x00\x00\x00"), empty...)),
		"the same in a header field":       inHeader,
		"a structure of many":              message(2, "("+strings.Repeat("()", 120)+")", empty),
		"a map with keys that cannot be":   message(2, "a{vs}", empty),
		"a method call":                    message(1, "", nil),
		"another byte order":               append([]byte{'B'}, message(2, "", nil)[1:]...),
		"a header that is too long":        []byte("l\x02\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\xff\xff\xff\x03"),
		"an answer that is too long":       message(2, "o", make([]byte, maxMessage+1)),
		"a header field without its end":   message(2, strings.Repeat("s", 255), nil)[:32],
		"a value of another type than any": message(2, "v", []byte("\x01y\x00\x00")),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if version, err := ask(ctx, text); err == nil || ctx.Err() != nil {
			t.Errorf("%s: version %d, %v, %v", name, version, err, ctx.Err())
		}
		cancel()
	}
}

// TestSkippedSignals: signals that are of no use are skipped, whatever their type.
func TestSkippedSignals(t *testing.T) {
	text := append(message(4, "a()", make([]byte, 100_000)), message(4, "sa{sv}as", []byte("junk"))...)
	version, err := ask(t.Context(), append(text, goodReplies(t)...))
	if err != nil || version != 252 {
		t.Errorf("version %d, %v", version, err)
	}
}

// TestJobResult: the one signal that is of use arrives.
func TestJobResult(t *testing.T) {
	var b bytes.Buffer
	m := dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath(managerPath)), dbus.FieldInterface: dbus.MakeVariant(managerType),
		dbus.FieldMember: dbus.MakeVariant("JobRemoved"), dbus.FieldSignature: dbus.MakeVariant(dbus.ParseSignatureMust("uoss")),
	}, Body: []any{uint32(7), dbus.ObjectPath("/job/7"), "a.automount", "done"}}
	if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
		t.Fatal(err)
	}
	signal := b.Bytes()
	binary.LittleEndian.PutUint32(signal[8:], 1)
	c := newAnswers(newReplies(signal))
	c.authenticated, c.limited.R = true, bytes.NewReader(signal)
	got, err := dbus.DecodeMessage(c)
	if err != nil || len(got.Body) != 4 || got.Body[3] != "done" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestMaxAnswers(t *testing.T) {
	c := newAnswers(nil)
	c.limited.N = 0
	for _, c.authenticated = range []bool{false, true} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.ErrShortBuffer) {
			t.Errorf("%v", err)
		}
	}
}
