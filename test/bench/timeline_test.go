package bench

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// class is what the time of a run is spent on.
type class int

// In the order of a run; of several at the same time the lowest of inKernel counts.
const (
	fork        class = iota // from CRIU's fork to the execution of the program
	goStart                  // the start of the Go runtime and of the packages, up to the first call of main
	ownCode                  // a thread runs, and none is in the kernel
	inProcesses              // clone, execve, setns and the end of processes
	inMounts                 // mounts and their namespaces, RCU waits included
	inFiles                  // all other system calls
	handover                 // no thread runs: one wakes another, or waits for the processor
	atExit                   // from exit_group to the end of the process
	classes
)

var classNames = [classes]string{"fork", "Go's start", "own code", "processes", "mounts", "other calls", "threads", "exit"}

// calls of the classes; those that only wait are none, as fcntl in sys.ExpandFiles.
var (
	processCalls = []string{"clone", "clone3", "execve", "unshare", "setns", "waitid", "wait4", "pidfd_open", "ppoll", "poll"}
	mountCalls   = []string{"fsopen", "fsconfig", "fsmount", "open_tree", "move_mount", "mount_setattr", "umount", "mount"}
	waitingCalls = []string{"futex", "nanosleep", "epoll_pwait", "clock_nanosleep", "sched_yield", "fcntl"}
)

// stretch is a part of a run.
type stretch struct {
	class    class
	from, to time.Duration // since the fork
}

// timeline is one call of the program.
type timeline []stretch

// sums are the durations of the classes.
func (t timeline) sums() (sums [classes]time.Duration) {
	for _, s := range t {
		sums[s.class] += s.to - s.from
	}
	return sums
}

// took is the duration of the call.
func (t timeline) took() time.Duration {
	if len(t) == 0 {
		return 0
	}
	return t[len(t)-1].to
}

var (
	forked   = regexp.MustCompile(` pid=(\d+) child_comm=.* child_pid=(\d+)`)
	executed = regexp.MustCompile(`filename=(\S+) pid=(\d+)`)
	switched = regexp.MustCompile(` prev_pid=(\d+) .* prev_state=(\S+) ==> next_comm=.* next_pid=(\d+)`)
	flags    = regexp.MustCompile(`clone_flags: 0x([0-9a-f]+)`)
)

// tracer follows the tasks of one call of the program.
type tracer struct {
	root    int
	tasks   map[int]*traced // the threads
	begin   time.Duration
	last    time.Duration
	phase   class // fork, goStart, ownCode for the work, atExit
	stretch timeline
	ended   bool
}

// traced is a thread.
type traced struct {
	call    string // the system call that it is in
	args    string
	running bool
	// blocked is whether it waits for the kernel, as for RCU, which a close does after the
	// call.
	blocked bool
}

// timelines returns the calls of the program that CRIU makes, in their order.
func timelines(events []kernelEvent, program string) []timeline {
	births := map[int]time.Duration{}
	var list []timeline
	var current *tracer
	for _, e := range events {
		if m := forked.FindStringSubmatch(e.text); e.name == "sched_process_fork" && m != nil {
			births[number(m[2])] = e.at
		}
		if m := executed.FindStringSubmatch(e.text); e.name == "sched_process_exec" && m != nil && m[1] == program {
			pid := number(m[2])
			begin, known := births[pid]
			if !known {
				begin = e.at
			}
			current = &tracer{root: pid, tasks: map[int]*traced{pid: {running: true, call: "execve"}}, begin: begin, last: begin}
		}
		if current == nil {
			continue
		}
		current.add(e)
		if current.ended {
			list, current = append(list, current.stretch), nil
		}
	}
	return list
}

func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

// add accounts for the time up to the event, and follows it.
func (t *tracer) add(e kernelEvent) {
	if e.name == "sched_switch" {
		if m := switched.FindStringSubmatch(e.text); m != nil {
			t.account(e.at)
			t.run(number(m[1]), false, m[2] == "D")
			t.run(number(m[3]), true, false)
		}
		return
	}
	task := t.tasks[e.task]
	if task == nil {
		return
	}
	t.account(e.at)
	name, isCall := strings.CutPrefix(e.name, "sys_")
	name, _, ends := strings.Cut(name, " -> ")
	switch {
	case isCall && ends:
		task.call, task.running = "", true
	case isCall:
		task.call, task.args, task.running = name, e.text, true
		if name == "socket" && t.phase == goStart {
			t.phase = ownCode
		}
		if name == "exit_group" {
			t.phase = atExit
		}
	case e.name == "sched_process_exec":
		t.phase = goStart
		t.tasks = map[int]*traced{t.root: {running: true}}
	case e.name == "sched_process_fork":
		m, f := forked.FindStringSubmatch(e.text), flags.FindStringSubmatch(task.args)
		if m != nil && f != nil {
			const thread = 0x10000 // CLONE_THREAD
			if bits, _ := strconv.ParseUint(f[1], 16, 64); bits&thread != 0 {
				t.tasks[number(m[2])] = &traced{}
			}
		}
	case e.name == "sched_process_exit":
		delete(t.tasks, e.task)
		t.ended = len(t.tasks) == 0
	}
}

func (t *tracer) run(pid int, running, blocked bool) {
	if task := t.tasks[pid]; task != nil {
		task.running, task.blocked = running, blocked
	}
}

// account adds the time since the last event.
func (t *tracer) account(now time.Duration) {
	if now <= t.last {
		return
	}
	kind := t.phase
	if kind == ownCode {
		kind = t.kind()
	}
	from, to := t.last-t.begin, now-t.begin
	if n := len(t.stretch); n > 0 && t.stretch[n-1].class == kind {
		t.stretch[n-1].to = to
	} else {
		t.stretch = append(t.stretch, stretch{kind, from, to})
	}
	t.last = now
}

// kind is what the threads do now.
func (t *tracer) kind() class {
	best := handover
	for _, task := range t.tasks {
		kind := handover
		switch {
		case task.call == "" && task.running:
			kind = ownCode
		case task.call == "" && task.blocked:
			kind = inMounts
		case task.call == "" || slices.Contains(waitingCalls, task.call):
		case slices.Contains(processCalls, task.call):
			kind = inProcesses
		case slices.Contains(mountCalls, task.call):
			kind = inMounts
		default:
			kind = inFiles
		}
		if kind != handover && (best == handover || best == ownCode || kind > ownCode && kind < best) {
			best = kind
		}
	}
	return best
}
