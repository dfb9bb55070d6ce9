package bench

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// budget is the limit of a stage's system calls: with the few automounts of callSizes,
// and for each further one.
type budget struct {
	few  int
	each float64
}

// budgets are by stage. They do not include the superblocks that fill device numbers,
// which depend on the machine's other file systems (perFiller).
var budgets = map[string]budget{
	"pre-restore": {few: 400, each: 8},
	// Containers of 5 and of 105 have as many watched groups without processes.
	"post-setup-namespaces": {few: 400, each: 8},
	// Pipes are read by fstat before they are opened: 3 calls a mount.
	"pre-resume":  {few: 1060, each: 54},
	"post-resume": {few: 680, each: 4},
}

// idleBudgets are the limits of system calls on a container without automounts, by stage.
var idleBudgets = map[string]int{"pre-restore": 70, "post-setup-namespaces": 70, "pre-resume": 70, "post-resume": 180}

// TestBudgetIdle is TestBudget for a container without automounts, as most are. The
// program does not copy itself there, which it does where the container's processes may
// have CAP_SYS_PTRACE.
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

// TestBudget fails when a restore takes more system calls than the budgets. The number
// does not depend on the machine's load.
func TestBudget(t *testing.T) {
	lab.RequireNode(t)
	widenSockets(t)
	counted := countedRestores(t)
	for _, stage := range workStages {
		few, many := counted[0][stage], counted[1][stage]
		have := budget{few: few.work(), each: slope(few, many)}
		t.Logf("%s: %d system calls with %d automounts, %.1f for each further one", stage, have.few, callSizes[0], have.each)
		if b := budgets[stage]; have.few > b.few || have.each > b.each {
			t.Errorf("%s: the budget is %d system calls with %d automounts, and %.1f for each further one", stage, b.few, callSizes[0], b.each)
			printCalls(few, many)
		}
	}
}
