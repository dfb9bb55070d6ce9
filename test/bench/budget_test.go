package bench

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// idleBudgets are the limits of system calls on a container without automounts, by stage.
var idleBudgets = map[string]int{"pre-restore": 70, "post-setup-namespaces": 70, "pre-resume": 70, "post-resume": 180}

// TestBudgetIdle fails when a restore of a container without automounts, as most are,
// takes more system calls than the budgets. The number does not depend on the machine's
// load; BenchmarkCalls compares those for containers with automounts. The program does not
// copy itself there, which it does where the container's processes may have
// CAP_SYS_PTRACE.
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
