package host

import (
	"context"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// scripts stand in for autofs-restore-hook, with faults that the real one does not
// have, by the process that they are called for. The real one runs in test/agent.
var scripts = map[string]string{
	"1":  `[ "$*" = "repair 1 --json" ] || exit 1; echo "$REPORT"; exit 3`,
	"10": "echo 'panic: no' >&2; kill -SEGV $$",
	"11": "exit 0",
	"12": `echo '{"outcome":"rep'; exit 1`,
	"13": `echo '{}'`,
	"14": "echo 'process 14: no such process' >&2; exit 2",
	"15": `printf 'a\n\033[31mlevel=info\r\n' >&2; exit 2`,
	"20": "exec sleep 60",
}

// TestMain is also the stand-in for autofs-restore-hook.
func TestMain(m *testing.M) {
	if os.Args[0] == "autofs-restore-hook" {
		script := "echo autofs-restore-hook v1"
		if len(os.Args) > 2 {
			script = scripts[os.Args[2]]
		}
		args := append([]string{"sh", "-c", script, "program"}, os.Args[1:]...)
		panic(syscall.Exec("/bin/sh", args, append(os.Environ(), "REPORT="+partial)))
	}
	testenv.Main(m)
}

func program(t *testing.T) *Program {
	t.Helper()
	testenv.RequireRoot(t)
	p, err := Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	if _, err := p.Run(t.Context(), "version"); err != nil && strings.Contains(err.Error(), "control group") {
		if os.Getenv("REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return p
}

const partial = `{"pid":42,"outcome":"partial","trigger":"command:repair","mounts":[{"path":"/a","outcome":"unrepaired","covered_by":[]}]}`

func TestRepair(t *testing.T) {
	r, err := program(t).Repair(t.Context(), 1)
	if err != nil || r.Outcome != report.Partial || len(r.Mounts) != 1 || r.Mounts[0].Outcome != plan.Unrepaired {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestNoReport(t *testing.T) {
	p := program(t)
	for pid, says := range map[int]string{
		10: `"panic: no"`, 11: "no report", 12: "no report", 13: "no outcome", 14: "no such process", 15: `"\x1b[31mlevel=info"`,
	} {
		r, err := p.Repair(t.Context(), pid)
		if err == nil || !strings.Contains(err.Error(), says) || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%s: %+v, %v, want an error with %s", scripts[strconv.Itoa(pid)], r, err, says)
		}
	}
}

func TestDeadline(t *testing.T) {
	p := program(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	if r, err := p.Inspect(ctx, 20); err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("%+v, %v, after %s", r, err, time.Since(began))
	}
}

func TestVersion(t *testing.T) {
	if v, err := program(t).Version(t.Context()); v != "autofs-restore-hook v1" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
}
