package systemd

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// replies is a systemd that accepts any authentication, replies to each message with the
// next of its messages, and then ends.
type replies struct {
	greeting *bytes.Reader
	rest     []byte
	message  *bytes.Reader
	asked    chan struct{}
	closed   chan struct{}
	once     sync.Once
}

func newReplies(rest []byte) *replies {
	const greeting = "REJECTED EXTERNAL\r\nOK 0123456789abcdef0123456789abcdef\r\nERROR\r\n"
	return &replies{
		greeting: bytes.NewReader([]byte(greeting)), rest: rest, message: bytes.NewReader(nil),
		asked: make(chan struct{}, 64), closed: make(chan struct{}),
	}
}

func (r *replies) Read(b []byte) (int, error) {
	if r.greeting.Len() > 0 {
		return r.greeting.Read(b)
	}
	if r.message.Len() == 0 && len(r.rest) > 0 {
		select {
		case <-r.asked:
		case <-time.After(time.Millisecond): // it waits for an answer that was none
		case <-r.closed:
			return 0, io.EOF
		}
		n := messageSize(r.rest)
		r.message, r.rest = bytes.NewReader(r.rest[:n]), r.rest[n:]
	}
	return r.message.Read(b)
}

// messageSize is how long the first message is, by what it says itself, and all
// that is there if that is too much (D-Bus specification, Message Format).
func messageSize(b []byte) int {
	const fixed = 16
	if len(b) < fixed {
		return len(b)
	}
	body, fields := uint64(binary.LittleEndian.Uint32(b[4:])), uint64(binary.LittleEndian.Uint32(b[12:]))
	return int(min(uint64(len(b)), fixed+(fields+7)/8*8+body))
}

func (r *replies) Write(b []byte) (int, error) {
	if len(b) > 0 && b[0] == 'l' { // a message, not a line of the authentication
		select {
		case r.asked <- struct{}{}:
		default:
		}
	}
	return len(b), nil
}

func (r *replies) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

// reply is the answer to the request with the number.
func reply(tb testing.TB, serial uint32, body ...any) []byte {
	tb.Helper()
	m := dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldReplySerial: dbus.MakeVariant(serial),
		dbus.FieldSignature:   dbus.MakeVariant(dbus.SignatureOf(body...)),
	}, Body: body}
	var b bytes.Buffer
	if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
		tb.Fatal(err)
	}
	text := b.Bytes()
	binary.LittleEndian.PutUint32(text[8:], serial+1000) // its own number, which must not be 0
	return text
}

// ask asks for all that is ever asked for.
func ask(ctx context.Context, rest []byte) (version int, err error) {
	m := &Manager{jobs: newJobResults()}
	conn, err := dbus.NewConn(newAnswers(newReplies(rest)), dbus.WithContext(ctx), dbus.WithSignalHandler(m.jobs))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal("0")}); err != nil {
		return 0, err
	}
	m.conn = conn
	version, err = m.Version(ctx)
	if err != nil {
		return 0, err
	}
	_ = m.Restart(ctx, "a.automount")
	return version, nil
}

// goodReplies are those of a systemd.
func goodReplies(tb testing.TB) []byte {
	tb.Helper()
	return reply(tb, 1, dbus.MakeVariant("252.39-1~deb12u1"))
}

// FuzzReplies feeds what a container's systemd may send to all that reads it:
// whatever it is, the questions end, and an answer is one for what was asked.
func FuzzReplies(f *testing.F) {
	good := goodReplies(f)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(reply(f, 1, []string{}))
	f.Add(reply(f, 1, "not a list"))
	f.Add(append(good, reply(f, 2, dbus.ObjectPath("/job/1"))...))
	f.Add([]byte("l\x03\x00\x01\xff\xff\xff\x7f\x01\x00\x00\x00\xff\xff\xff\x03"))
	f.Fuzz(func(t *testing.T, rest []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		version, _ := ask(ctx, rest)
		if ctx.Err() != nil {
			t.Error("the questions do not end")
		}
		if version < 0 {
			t.Errorf("version %d", version)
		}
	})
}

// TestReplies: the seed of the fuzz target is understood.
func TestReplies(t *testing.T) {
	version, err := ask(t.Context(), goodReplies(t))
	if err != nil || version != 252 {
		t.Errorf("version %d, %v", version, err)
	}
	if _, err := ask(t.Context(), nil); err == nil {
		t.Error("no replies, no error")
	}
}
