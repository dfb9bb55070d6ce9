// Package ptrace stops another process: to follow its system calls ([Tracer]) and to
// make system calls in its place ([Injector]). The tracer is a thread, not a process
// (ptrace(2)): all calls are made on the thread that has seized the process, and its end
// releases the process.
package ptrace
