package mounts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// errLine means that a line is not one of mountinfo.
var errLine = errors.New("not a line of mountinfo")

// parse reads mountinfo text. mountinfo.GetMountsFromReader fails on a line of 64 KiB,
// which an overlay of many layers has, and on a path of a few thousand blanks. Of mounts
// other than autofs it keeps only what this package uses: a container may have 100,000 of
// them in each of its mount namespaces.
func parse(r io.Reader) ([]*Mount, error) {
	var list []*Mount
	types := map[string]string{} // a few, each for many mounts
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxTable)
	for lines.Scan() {
		m, err := parseLine(lines.Text(), types)
		if err != nil {
			return nil, fmt.Errorf("%w: %.200q", err, lines.Text())
		}
		list = append(list, m)
	}
	return list, lines.Err()
}

// parseLine parses a line (proc_pid_mountinfo(5)):
//
//	36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//
// The kernel writes blanks, tabs, newlines and backslashes in fields as octal numbers,
// so a blank always ends a field.
func parseLine(line string, types map[string]string) (*Mount, error) {
	var fields [6]string
	for i := range fields {
		var more bool
		if fields[i], line, more = strings.Cut(line, " "); !more {
			return nil, errLine
		}
	}
	optional, rest, more := strings.Cut(" "+line, " - ")
	fstype, rest, more2 := strings.Cut(rest, " ")
	source, options, more3 := strings.Cut(rest, " ")
	if !more || !more2 || !more3 {
		return nil, errLine
	}
	m := &Mount{Mountpoint: unescape(fields[4]), Optional: strings.Clone(strings.TrimPrefix(optional, " "))}
	major, minor, _ := strings.Cut(fields[2], ":")
	for _, number := range []struct {
		text string
		to   *int
	}{{fields[0], &m.ID}, {fields[1], &m.Parent}, {major, &m.Major}, {minor, &m.Minor}} {
		n, err := strconv.ParseInt(number.text, 10, 32)
		if err != nil {
			return nil, errLine
		}
		*number.to = int(n)
	}
	if known, ok := types[fstype]; ok {
		m.FSType = known
	} else {
		m.FSType = unescape(fstype)
		types[strings.Clone(fstype)] = m.FSType
	}
	if m.FSType == "autofs" {
		m.Root, m.Options, m.Source, m.VFSOptions = unescape(fields[3]), strings.Clone(fields[5]), unescape(source), strings.Clone(options)
	}
	return m, nil
}

// unescape decodes a field; the copy does not keep the line in memory.
func unescape(field string) string {
	var b strings.Builder
	for {
		plain, rest, more := strings.Cut(field, `\`)
		b.WriteString(plain)
		if !more {
			return b.String()
		}
		n, err := uint64(0), errLine
		if len(rest) >= 3 {
			n, err = strconv.ParseUint(rest[:3], 8, 8)
		}
		if err == nil {
			b.WriteByte(byte(n))
			rest = rest[3:]
		} else {
			b.WriteByte('\\')
		}
		field = rest
	}
}
