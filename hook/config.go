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

// ConfigFile is the administrator's configuration. It need not exist.
const ConfigFile = "/etc/autofs-restore-hook.conf"

// maxConfig bounds the configuration, in bytes.
const maxConfig = 64 << 10

// Config is what the administrator chose.
type Config struct {
	// Strict makes what fails the exit status of the hook and the action script
	// too. CRIU and runc heed it before the container's processes exist
	// (pre-restore, createRuntime): there it fails the restore. Later CRIU only
	// logs it.
	Strict bool
}

// ReadConfig reads ConfigFile; no file means no choices.
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
		if name = strings.TrimSpace(name); name != "strict" {
			return Config{}, fmt.Errorf("line %d: unknown setting %q; the only one is strict", number, name)
		}
		strict, err := strconv.ParseBool(strings.TrimSpace(value))
		if err != nil {
			return Config{}, fmt.Errorf("line %d: strict = %q: want true or false", number, strings.TrimSpace(value))
		}
		c.Strict = strict
	}
	if err := lines.Err(); err != nil {
		return Config{}, fmt.Errorf("after its start: %w", err)
	}
	return c, nil
}
