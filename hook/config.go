package hook

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ConfigFile is the administrator's configuration. It may be absent.
const ConfigFile = "/etc/autofs-restore-hook.conf"

// maxConfig is the longest configuration, in bytes.
const maxConfig = 64 << 10

// Config is the administrator's configuration. The zero value is the default.
type Config struct {
	// Strict makes the hook and the action script exit with an error if a stage
	// fails. Before the container's processes exist (pre-restore,
	// post-setup-namespaces, createRuntime) CRIU and runc abort the restore then. At
	// later stages CRIU only logs the error.
	Strict bool
	// ReexecuteReplaced allows a container's systemd to re-execute itself, so that
	// its state can be corrected, even if its program file was replaced since it
	// was started. It then runs the new version.
	ReexecuteReplaced bool
}

// ReadConfig reads a configuration, normally [ConfigFile]. An absent file is the zero
// Config.
func ReadConfig(path string) (Config, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	c, err := parseConfig(f)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s, %w", path, err)
	}
	return c, nil
}

// parseConfig reads lines "name = value"; # begins a comment.
func parseConfig(r io.Reader) (Config, error) {
	var c Config
	lines := bufio.NewScanner(io.LimitReader(r, maxConfig))
	for number := 1; lines.Scan(); number++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		name, value, _ := strings.Cut(text, "=")
		var choice *bool
		switch name = strings.TrimSpace(name); name {
		case "strict":
			choice = &c.Strict
		case "reexecute-replaced":
			choice = &c.ReexecuteReplaced
		default:
			return Config{}, fmt.Errorf("line %d: unknown setting %q; there are strict and reexecute-replaced", number, name)
		}
		var err error
		if *choice, err = strconv.ParseBool(strings.TrimSpace(value)); err != nil {
			return Config{}, fmt.Errorf("line %d: %s = %q: want true or false", number, name, strings.TrimSpace(value))
		}
	}
	if err := lines.Err(); err != nil {
		return Config{}, fmt.Errorf("read: %w", err)
	}
	return c, nil
}
