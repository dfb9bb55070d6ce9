package automount

import (
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"golang.org/x/sys/unix"
)

// TestFindMasterMap: a daemon that would not find its master map is not sent SIGHUP.
func TestFindMasterMap(t *testing.T) {
	const conf, sss = "/etc/autofs.conf", "/etc/nsswitch.conf"
	for name, c := range map[string]struct {
		files map[string]string
		args  []string
		want  error
	}{
		"none":                  {nil, nil, ErrNoMasterMap},
		"the usual one":         {map[string]string{"/etc/auto.master": ""}, nil, nil},
		"the other usual one":   {map[string]string{"/etc/auto_master": ""}, nil, nil},
		"another one, absent":   {map[string]string{"/etc/auto.master": "", conf: "[ autofs ]\nmaster_map_name = auto.mine\n"}, nil, ErrNoMasterMap},
		"another one":           {map[string]string{"/etc/auto.mine": "", conf: "master_map_name = auto.mine\n"}, nil, nil},
		"another one, quoted":   {map[string]string{"/etc/auto.mine": "", "/etc/default/autofs": "MASTER_MAP_NAME=\"/etc/auto.mine\"\n"}, nil, nil},
		"only a comment":        {map[string]string{"/etc/auto.master": "", conf: "# master_map_name = auto.mine\n"}, nil, nil},
		"by argument":           {map[string]string{"/map": ""}, []string{"-f", "/map"}, nil},
		"by argument, absent":   {map[string]string{"/etc/auto.master": ""}, []string{"-f", "/map"}, ErrNoMasterMap},
		"pid file, not a map":   {map[string]string{"/etc/auto.master": ""}, []string{"-p", "/run/autofs.pid"}, nil},
		"from a directory":      {map[string]string{conf: "master_map_name = ldap:auto.master\n"}, nil, nil},
		"by the switch":         {map[string]string{sss: "passwd: files\nautomount:\tfiles [NOTFOUND=continue] sss\n"}, nil, nil},
		"by the switch, files":  {map[string]string{sss: "automount: files # sss\n"}, nil, ErrNoMasterMap},
		"by the switch, passwd": {map[string]string{sss: "passwd: sss\n"}, nil, ErrNoMasterMap},
	} {
		t.Run(name, func(t *testing.T) {
			read := func(path string) (string, error) {
				if text, ok := c.files[path]; ok {
					return text, nil
				}
				return "", fs.ErrNotExist
			}
			err := findMasterMap(append([]string{"automount"}, c.args...), read)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	denied := func(string) (string, error) { return "", unix.EACCES }
	if err := findMasterMap([]string{"automount"}, denied); err != nil {
		t.Errorf("a map that only the daemon can read: %v", err)
	}
}

// TestHandlesHangup: cat does not, nohup has it ignored, and a shell can catch it.
func TestHandlesHangup(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want bool
	}{
		"default": {[]string{"env", "--default-signal=HUP", "cat"}, false}, // also under nohup(1)
		"ignored": {[]string{"nohup", "cat"}, true},
		"caught":  {[]string{"env", "--default-signal=HUP", "sh", "-c", "trap : HUP; cat"}, true},
		"blocked": {[]string{"env", "--block-signal=HUP", "cat"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := testproc.Open(t, testenv.StartCommand(t, nil, c.args...))
			deadline := time.Now().Add(testenv.Patience) // until the program has got that far
			for {
				handled, err := handlesHangup(p)
				if err == nil && handled == c.want {
					return
				}
				if err != nil || time.Now().After(deadline) {
					t.Fatalf("%v, %v", handled, err)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}
