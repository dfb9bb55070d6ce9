package bench

import (
	"testing"
	"time"
)

// TestTimelines accounts for a call of the program in a trace as the kernel writes it.
func TestTimelines(t *testing.T) {
	const text = `# tracer: nop
            criu-10      [000] ..... 1.000000: sched_process_fork: comm=criu pid=10 child_comm=criu child_pid=20
            hook-20      [001] ..... 1.001000: sched_process_exec: filename=/bin/hook pid=20 old_pid=20
            hook-20      [001] ..... 1.001100: sys_mmap(addr: 0, len: 0x1000)
            hook-20      [001] ..... 1.001200: sys_mmap -> 0x7000
            hook-20      [001] ..... 1.002000: sys_socket(family: 1)
            hook-20      [001] ..... 1.002100: sys_socket -> 0x3
            hook-20      [001] ..... 1.002500: sys_clone(clone_flags: 0xd0f00, newsp: 0)
            hook-20      [001] ..... 1.002550: sched_process_fork: comm=hook pid=20 child_comm=hook child_pid=21
            hook-20      [001] ..... 1.002600: sys_clone -> 0x15
            hook-20      [001] ..... 1.002600: sys_futex(uaddr: 0)
            hook-20      [001] d..2. 1.002600: sched_switch: prev_comm=hook prev_pid=20 prev_prio=120 prev_state=S ==> next_comm=hook next_pid=21 next_prio=120
            hook-21      [001] ..... 1.003000: sys_umount(name: 0, flags: 0x2)
            hook-21      [001] ..... 1.004000: sys_umount -> 0x0
            hook-21      [001] d..2. 1.004000: sched_switch: prev_comm=hook prev_pid=21 prev_prio=120 prev_state=D ==> next_comm=swapper/1 next_pid=0 next_prio=120
          <idle>-0       [001] d..2. 1.005000: sched_switch: prev_comm=swapper/1 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=hook next_pid=21 next_prio=120
            hook-21      [001] ..... 1.005000: sys_exit_group(error_code: 0)
            hook-21      [001] ..... 1.005200: sched_process_exit: comm=hook pid=21 prio=120
            hook-20      [001] ..... 1.005300: sched_process_exit: comm=hook pid=20 prio=120
            true-22      [000] ..... 1.009000: sys_mmap(addr: 0)
`
	list := timelines(parseEvents(text), "/bin/hook")
	if len(list) != 1 {
		t.Fatalf("%d calls, want 1: %v", len(list), list)
	}
	want := [classes]time.Duration{
		fork: 1000, goStart: 1000, ownCode: 800, inProcesses: 100, inMounts: 2000, inFiles: 100, atExit: 300,
	}
	for kind, got := range list[0].sums() {
		if got != want[kind]*time.Microsecond {
			t.Errorf("%s: %v, want %v", classNames[kind], got, want[kind]*time.Microsecond)
		}
	}
}
