// Package respawn starts a twin of a process of a container: the same program
// with exactly what the process has, and nothing more. It is for automount
// daemons that no systemd could start again.
//
// # What a twin has
//
// All namespaces, root, working directory, arguments, environment, user and
// group numbers, capability sets and bounding set, no_new_privs, seccomp
// filters, the label of the security module, resource limits, oom_score_adj,
// umask, scheduling, CPU affinity, personality, and control groups of the
// process; a session and a process group of its own, and standard input, output
// and error on the container's /dev/null.
//
// Nothing is believed: the twin is started while the process still lives, and
// stopped by the kernel after its exec, before its first instruction. There it is
// compared with the process, by what the kernel says of both. If anything
// differs it is killed, and the process has not been touched. Securebits cannot
// be read from outside; the twin has none, and that its capabilities are the same
// after the exec is what counts.
//
// What is not copied: session keyring (the twin gets a new one), audit session,
// I/O priority, memory policy.
//
// # What the container can see of us
//
// A process that is to be in a pid namespace must be born there, and for a
// moment it runs our program. The container must not get hold of that file, with
// which it could change the program on the host (CVE-2019-5736). So the twin's
// parent is a process of ours that runs a sealed copy of the program in memory:
// writing to it is impossible for anybody, whatever path leads there (an
// interpreter "/proc/self/exe" of the container's program, for one). The twin is
// not dumpable before its exec, has no descriptor of ours after it, and dies with
// its parent until it is let go.
//
// # When not to use this package
//
// For a service of systemd: systemd would not know the new process.
package respawn
