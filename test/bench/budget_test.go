package bench

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// idleBudgets are how many system calls a stage may take on a container without
// automounts.
var idleBudgets = map[string]int{"pre-restore": 70, "post-setup-namespaces": 70, "pre-resume": 70, "post-resume": 180}

// TestBudgetIdle fails when a restore of a container without automounts, which is most,
// takes more system calls than it needed when the budgets were set. Counts do not
// depend on how busy the machine is; those for containers with automounts are compared
// by BenchmarkCalls. Nothing is copied there: its processes may have CAP_SYS_PTRACE, for which
// the program makes a sealed copy of itself where it works.
func TestBudgetIdle(t *testing.T) {
	lab.RequireNode(t)
	restored, stage := withoutAutomounts(t)
	defer end(t, restored)
	for _, name := range workStages {
		counted := countCalls(trace(t, withEnv(lab.Hook(), nil, "", stage(name)...)))
		t.Logf("%s: %d system calls on a container without automounts", name, counted.work())
		if most := idleBudgets[name]; counted.work() > most || counted["memfd_create"] > 0 || counted["execve"] != 1 {
			t.Errorf("%s: the budget is %d system calls, and no copy:", name, most)
			printCalls(counted, counted)
		}
	}
}
