package lab

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
)

// BusStyles are the ways in which a hostile systemd answers: it
//
//	hangs            accepts a connection and sends nothing
//	hangs-later      hangs after the authentication
//	garbage          answers the authentication with random bytes
//	garbage-later    answers messages with random bytes
//	endless          answers the authentication with a line without end
//	endless-later    sends signals without end
//	huge             announces a message of 120 MB, and sends a part of it
//	names            answers with the names of other units, also malformed ones
//	types            answers with values of wrong types
//	dies-N           ends after N messages
var BusStyles = []string{
	"hangs", "hangs-later", "garbage", "garbage-later", "endless", "endless-later", "huge", "types", "names",
}

// HostileNames are the unit names with which a hostile systemd answers.
var HostileNames = []string{
	"ssh.service", "../../../etc/passwd", "-.mount", "evil\nlevel=error msg=forged.automount", "",
	"/etc/shadow", strings.Repeat("x", 240) + ".automount", strings.Repeat("y", 200) + "\x1b[2J.service",
}

func serveBus(conn net.Conn, paths []string) {
	style, err := os.ReadFile(HostileStyle)
	if err != nil {
		return
	}
	answerAs(conn, strings.TrimSpace(string(style)), paths)
}

func answerAs(conn net.Conn, style string, paths []string) {
	random := rand.New(rand.NewPCG(1, 2))
	garbage := func() []byte {
		b := make([]byte, 4096)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	switch style {
	case "hangs":
		time.Sleep(time.Hour)
	case "garbage":
		for range 64 {
			_, _ = conn.Write(garbage())
		}
		time.Sleep(time.Hour)
	case "endless":
		for line := []byte(strings.Repeat("OK", 4096)); ; {
			if _, err := conn.Write(line); err != nil {
				return
			}
		}
	}
	in := bufio.NewReader(conn)
	if !authenticate(in, conn) {
		return
	}
	switch style {
	case "hangs-later":
		_, _ = io.Copy(io.Discard, in)
	case "garbage-later":
		for {
			if _, err := conn.Write(garbage()); err != nil {
				return
			}
		}
	case "huge":
		// Little endian, a signal, no flags, version 1, length, serial, fields.
		head := append([]byte{'l', 4, 0, 1}, binary.LittleEndian.AppendUint32(nil, 120<<20)...)
		_, _ = conn.Write(append(head, 1, 0, 0, 0, 8, 0, 0, 0, 1, 1, 'o', 0, 1, 0, 0, 0))
		for b := make([]byte, 1<<16); ; {
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
	case "endless-later":
		for serial := uint32(1); ; serial++ {
			signal := dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
				dbus.FieldPath:      dbus.MakeVariant(dbus.ObjectPath("/org/freedesktop/systemd1")),
				dbus.FieldInterface: dbus.MakeVariant("org.freedesktop.systemd1.Manager"),
				dbus.FieldMember:    dbus.MakeVariant("UnitNew"),
			}}
			if sendMessage(conn, &signal, serial, "evil.service", dbus.ObjectPath("/evil")) != nil {
				return
			}
		}
	}
	answerMessages(in, conn, style, paths)
}

// authenticate is the server side of D-Bus authentication.
func authenticate(in *bufio.Reader, out io.Writer) bool {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return false
		}
		answer := "ERROR\r\n"
		switch word, _, _ := strings.Cut(strings.Trim(line, "\x00\r\n"), " "); word {
		case "BEGIN":
			return true
		case "NEGOTIATE_UNIX_FD":
			answer = "AGREE_UNIX_FD\r\n"
		case "AUTH":
			answer = "OK 0123456789abcdef0123456789abcdef\r\n"
			if !strings.Contains(line, "EXTERNAL") {
				answer = "REJECTED EXTERNAL\r\n"
			}
		}
		if _, err := io.WriteString(out, answer); err != nil {
			return false
		}
	}
}

var messages atomic.Int64

func answerMessages(in io.Reader, out io.Writer, style string, paths []string) {
	deadAfter := int64(1 << 40)
	if text, ok := strings.CutPrefix(style, "dies-"); ok {
		deadAfter, _ = strconv.ParseInt(text, 10, 64)
	}
	log, err := os.OpenFile(HostileLog, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return
	}
	defer log.Close()
	for serial := uint32(1); ; serial++ {
		m, err := dbus.DecodeMessage(in)
		if err != nil {
			return
		}
		member, _ := m.Headers[dbus.FieldMember].Value().(string)
		fmt.Fprintf(log, "%s %q\n", member, m.Body)
		if messages.Add(1) > deadAfter {
			os.Exit(0)
		}
		reply := dbus.Message{Type: dbus.TypeMethodReply, Flags: dbus.FlagNoReplyExpected, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldReplySerial: dbus.MakeVariant(m.Serial()),
		}}
		if sendMessage(out, &reply, serial, content(style, member, m.Body, paths)...) != nil {
			return
		}
	}
}

// content returns the answer of a hostile systemd.
func content(style, member string, asked []any, paths []string) []any {
	if style == "types" {
		return []any{[]byte{0xff}, int16(-1)}
	}
	switch member {
	case "ListUnitsByPatterns":
		type unit struct {
			Name, Description, Load, Active, Sub, Following string
			Path                                            dbus.ObjectPath
			Job                                             uint32
			JobType                                         string
			JobPath                                         dbus.ObjectPath
		}
		var list []unit
		names := []string{UnitName(paths[0], "automount")}
		if style == "names" {
			names = append(HostileNames, names...)
		}
		for _, name := range names {
			list = append(list, unit{Name: name, Active: "active", Sub: "waiting", Path: "/x", JobPath: "/"})
		}
		return []any{list}
	case "GetAll":
		return []any{properties(paths)}
	case "Get":
		value := dbus.MakeVariant("running")
		if len(asked) == 2 {
			if name, ok := asked[1].(string); ok && properties(paths)[name].Value() != nil {
				value = properties(paths)[name]
			}
		}
		return []any{value}
	case "RestartUnit", "StartUnit":
		return []any{dbus.ObjectPath("/org/freedesktop/systemd1/job/1")}
	}
	return nil
}

// properties are those of every unit.
func properties(paths []string) map[string]dbus.Variant {
	return map[string]dbus.Variant{
		"ActiveState": dbus.MakeVariant("active"), "SubState": dbus.MakeVariant("waiting"), "Version": dbus.MakeVariant("252.1"),
		"Where": dbus.MakeVariant(paths[0]), "ActiveEnterTimestamp": dbus.MakeVariant(uint64(1)),
	}
}

func sendMessage(out io.Writer, m *dbus.Message, serial uint32, body ...any) error {
	m.Body = body
	if len(body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
	}
	// EncodeTo needs a serial, which only a connection can set: it is written into the
	// encoded message instead.
	var text strings.Builder
	if err := m.EncodeTo(&text, binary.LittleEndian); err != nil {
		return err
	}
	b := []byte(text.String())
	binary.LittleEndian.PutUint32(b[8:], serial)
	_, err := out.Write(b)
	return err
}
