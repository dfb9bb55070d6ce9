package systemd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxAnswers bounds the bytes that systemd may send on one connection: a description of
// 500 units takes about 2 MB.
const maxAnswers = 64 << 20

// maxMessage bounds the header and the body of a message that is not skipped, in bytes.
const maxMessage = 64 << 10

// answers is a connection on which only the messages arrive that this package asks for, and
// not too many. The D-Bus library decodes whatever types a message declares: an array of
// empty structures has no end, and others take a hundred times the memory of the message.
type answers struct {
	io.ReadWriteCloser
	limited       io.LimitedReader // what systemd sends
	authenticated bool
	message       bytes.Reader // the rest of the message that is being read
}

func newAnswers(conn io.ReadWriteCloser) *answers {
	return &answers{ReadWriteCloser: conn, limited: io.LimitedReader{R: conn, N: maxAnswers}}
}

// Write notices the end of the authentication. No message is being read before that.
func (c *answers) Write(b []byte) (int, error) {
	if string(b) == "BEGIN\r\n" {
		c.authenticated = true
	}
	return c.ReadWriteCloser.Write(b)
}

func (c *answers) Read(b []byte) (int, error) {
	for c.authenticated && c.message.Len() == 0 {
		if err := c.next(); err != nil {
			return 0, c.explain(err)
		}
	}
	if c.authenticated {
		return c.message.Read(b)
	}
	n, err := c.limited.Read(b)
	return n, c.explain(err)
}

// explain replaces the error of a read that ends because of maxAnswers.
func (c *answers) explain(err error) error {
	if err != nil && c.limited.N <= 0 {
		return fmt.Errorf("systemd sent more than %d bytes: %w", int64(maxAnswers), io.ErrShortBuffer)
	}
	return err
}

// next reads the next message, or skips it if it is a signal that is of no use (D-Bus
// specification, Message Format).
func (c *answers) next() error {
	const fixed, reply, signal = 16, 2, 4 // an error is 3
	head := make([]byte, fixed)
	if _, err := io.ReadFull(&c.limited, head); err != nil {
		return err
	}
	body, size := binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[12:])
	if head[0] != 'l' || head[1] < reply || head[1] > signal || size > maxMessage {
		return fmt.Errorf("systemd sent %q, which does not begin an answer or a signal", head)
	}
	text := append(head, make([]byte, (size+7)&^7)...)
	if _, err := io.ReadFull(&c.limited, text[fixed:]); err != nil {
		return err
	}
	kind, err := bodyType(text[fixed:])
	if err != nil {
		return err
	}
	if head[1] == signal && kind != "uoss" { // JobRemoved
		_, err := io.CopyN(io.Discard, &c.limited, int64(body))
		return err
	}
	if body > maxMessage || !slices.Contains([]string{"", "o", "s", "v", "uoss"}, kind) {
		return fmt.Errorf("systemd sent %d bytes of type %.40q, which is no answer", body, kind)
	}
	text = append(text, make([]byte, body)...)
	if _, err := io.ReadFull(&c.limited, text[len(text)-int(body):]); err != nil {
		return err
	}
	if value := string(text[len(text)-int(body):]); kind == "v" && !strings.HasPrefix(value, "\x01s\x00") && !strings.HasPrefix(value, "\x04(uo)\x00") {
		return fmt.Errorf("systemd sent a value of another type than a text or a job: %.8q", value)
	}
	c.message.Reset(text)
	return nil
}

// bodyType returns the type of a message's body from its header fields, with their padding.
// It is an error if a field has a type that none has.
func bodyType(fields []byte) (kind string, err error) {
	for at := 0; at < len(fields); {
		field, n := fields[at:], 0 // at least 8 bytes
		switch string(field[1:4]) {
		case "\x01g\x00":
			n = 4 + 1 + int(field[4]) + 1
		case "\x01s\x00", "\x01o\x00":
			n = 4 + 4 + int(binary.LittleEndian.Uint32(field[4:])) + 1
		case "\x01u\x00":
			n = 4 + 4
		}
		if n == 0 || n > len(field) {
			return "", fmt.Errorf("systemd sent an invalid header field: %.8q", field)
		}
		if field[0] == 8 { // SIGNATURE
			kind = string(field[5 : n-1])
		}
		at += (n + 7) &^ 7
	}
	return kind, nil
}
