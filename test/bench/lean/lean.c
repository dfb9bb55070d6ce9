// The benchmark's baseline: it recreates automounts with given device numbers, by the
// necessary system calls alone, and checks only the numbers.
//
//   lean house COUNT DIRECTORY   has COUNT autofs mounts below DIRECTORY, in its
//                                own mount namespace, until standard input ends
//   lean preserve PID            recreates all autofs mounts of that process, and
//                                prints the duration of each step, in microseconds
//   lean binds PID COUNT DIRECTORY   has COUNT bind mounts below DIRECTORY, in the
//                                mount namespace of that process
//   lean sleep COUNT [own]       has COUNT processes, with own mount and pid namespaces
//                                after "own", until standard input ends
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

enum { set_flag = 0, set_string = 1, create = 6, most = 4096 };

static int fsopen_(const char *type) { return syscall(SYS_fsopen, type, 1); }
static int fsconfig_(int fd, unsigned command, const char *key, const char *value) {
	return syscall(SYS_fsconfig, fd, command, key, value, 0);
}
static int fsmount_(int fd) { return syscall(SYS_fsmount, fd, 1, 0); }
static int move_mount_(int from, int to, const char *path) {
	return syscall(SYS_move_mount, from, "", to, path, 4);
}

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static unsigned number(int fd) {
	struct stat st;
	if (fstat(fd, &st)) err(1, "fstat");
	return minor(st.st_dev);
}

// filler is an empty superblock.
static int filler(void) {
	int fs = fsopen_("ramfs");
	if (fs < 0 || fsconfig_(fs, create, NULL, NULL)) err(1, "filler");
	int fd = fsmount_(fs);
	if (fd < 0) err(1, "filler");
	close(fs);
	return fd;
}

// automount is a new direct autofs mount on the pipe.
static int automount(const char *pipe, const char *group) {
	int fs = fsopen_("autofs");
	if (fs < 0 || fsconfig_(fs, set_string, "fd", pipe) || fsconfig_(fs, set_string, "pgrp", group) ||
	    fsconfig_(fs, set_string, "minproto", "5") || fsconfig_(fs, set_string, "maxproto", "5") ||
	    fsconfig_(fs, set_string, "source", "systemd-1") || fsconfig_(fs, set_flag, "direct", NULL) ||
	    fsconfig_(fs, create, NULL, NULL))
		err(1, "autofs");
	int fd = fsmount_(fs);
	if (fd < 0) err(1, "fsmount");
	close(fs);
	return fd;
}

static void wait_input(void) {
	char c;
	while (read(0, &c, 1) > 0)
		;
}

static int house(int count, const char *dir) {
	char path[4096], text[32], group[32];
	int ends[2];
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("house", dir, "tmpfs", 0, NULL) || setpgid(0, 0))
		err(1, "house");
	snprintf(group, sizeof group, "%d", getpid());
	for (int i = 0; i < count; i++) {
		if (pipe2(ends, O_CLOEXEC | O_DIRECT)) err(1, "pipe2");
		snprintf(path, sizeof path, "%s/%d", dir, i);
		snprintf(text, sizeof text, "%d", ends[1]);
		mkdir(path, 0755);
		int fd = automount(text, group);
		if (move_mount_(fd, AT_FDCWD, path)) err(1, "move_mount");
		close(fd);
		close(ends[1]);
	}
	puts("ready");
	fflush(stdout);
	wait_input();
	return 0;
}

// stale is a mount that is recreated.
static struct stale {
	char path[256];
	unsigned long pipe;
	int reader, filler, fresh;
	unsigned wanted;
} list[most];

static int find(int pid) {
	char name[64], line[8192];
	int n = 0;
	snprintf(name, sizeof name, "/proc/%d/mountinfo", pid);
	FILE *f = fopen(name, "r");
	if (!f) err(1, "%s", name);
	while (n < most && fgets(line, sizeof line, f)) {
		char *tail = strstr(line, " - autofs "), *ino = strstr(line, "pipe_ino=");
		if (tail && ino && sscanf(line, "%*d %*d %*s %*s %255s", list[n].path) == 1) list[n++].pipe = strtoul(ino + 9, NULL, 10);
	}
	fclose(f);
	return n;
}

static void readers(int pid, int n) {
	char name[64], link[64];
	snprintf(name, sizeof name, "/proc/%d/fd", pid);
	DIR *d = opendir(name);
	if (!d) err(1, "%s", name);
	for (struct dirent *e; (e = readdir(d));) {
		ssize_t k = readlinkat(dirfd(d), e->d_name, link, sizeof link - 1);
		if (k < 0) continue;
		link[k] = 0;
		unsigned long pipe;
		if (sscanf(link, "pipe:[%lu]", &pipe) != 1) continue;
		for (int i = 0; i < n; i++)
			if (list[i].pipe == pipe) list[i].reader = atoi(e->d_name);
	}
	closedir(d);
}

static int preserve(int pid) {
	char name[64], text[32], group[32];
	double t0 = now();
	int n = find(pid);
	readers(pid, n);
	double t1 = now();
	for (int i = 0; i < n; i++) list[i].wanted = number(list[i].filler = filler());
	double t2 = now();
	snprintf(group, sizeof group, "%d", pid);
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof name, "/proc/%d/fd/%d", pid, list[i].reader);
		int pipe = open(name, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
		if (pipe < 0) err(1, "%s", name);
		snprintf(text, sizeof text, "%d", pipe);
		close(list[i].filler);
		list[i].fresh = automount(text, group);
		close(pipe);
		if (number(list[i].fresh) != list[i].wanted) errx(2, "%s: number %u, wanted %u", list[i].path, number(list[i].fresh), list[i].wanted);
	}
	double t3 = now();
	snprintf(name, sizeof name, "/proc/%d/ns/mnt", pid);
	int ns = open(name, O_RDONLY | O_CLOEXEC);
	if (ns < 0 || setns(ns, CLONE_NEWNS)) err(1, "setns");
	for (int i = 0; i < n; i++) {
		if (umount2(list[i].path, MNT_DETACH) || move_mount_(list[i].fresh, AT_FDCWD, list[i].path)) err(1, "%s", list[i].path);
		close(list[i].fresh);
	}
	double t4 = now();
	printf("%d %.1f %.1f %.1f %.1f\n", n, t1 - t0, t2 - t1, t3 - t2, t4 - t3);
	return 0;
}

static int binds(int pid, int count, const char *dir) {
	char name[4096];
	snprintf(name, sizeof name, "/proc/%d/ns/mnt", pid);
	int ns = open(name, O_RDONLY | O_CLOEXEC);
	if (ns < 0 || setns(ns, CLONE_NEWNS)) err(1, "setns");
	for (int i = 0; i < count; i++) {
		snprintf(name, sizeof name, "%s/bind-%d", dir, i);
		mkdir(name, 0755);
		if (mount(name, name, NULL, MS_BIND, NULL)) err(1, "%s", name);
	}
	return 0;
}

static int sleepers(int count, int own) {
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGCHLD, SIG_IGN);
	for (int i = 0; i < count; i++) {
		pid_t child = own ? syscall(SYS_clone, CLONE_NEWNS | CLONE_NEWPID | SIGCHLD, NULL, NULL, NULL, NULL) : fork();
		if (child < 0) err(1, "fork %d", i);
		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;) pause();
		}
	}
	puts("ready");
	fflush(stdout);
	wait_input();
	return 0;
}

int main(int argc, char **argv) {
	if (argc == 4 && !strcmp(argv[1], "house")) return house(atoi(argv[2]), argv[3]);
	if (argc == 3 && !strcmp(argv[1], "preserve")) return preserve(atoi(argv[2]));
	if (argc == 5 && !strcmp(argv[1], "binds")) return binds(atoi(argv[2]), atoi(argv[3]), argv[4]);
	if (argc >= 3 && !strcmp(argv[1], "sleep")) return sleepers(atoi(argv[2]), argc == 4);
	errx(2, "usage: lean house COUNT DIRECTORY | preserve PID | binds PID COUNT DIRECTORY | sleep COUNT [own]");
}
