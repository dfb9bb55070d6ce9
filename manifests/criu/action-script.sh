#!/bin/sh
# CRIU calls this at every stage of a checkpoint and of a restore. It is written
# and removed by autofs-restore-hook(8), which has work at three of them.
case ${CRTOOLS_SCRIPT_ACTION-} in
pre-restore | pre-resume | post-resume) ;;
*) exit 0 ;;
esac

program=@PROGRAM@
if ! [ -x "$program" ]; then
	echo "autofs-restore-hook: $program is missing: automounts are not repaired" >&2
	exit 0
fi

# runc has CRIU run in the container's control group (cgroup v2: "0::/path").
# Where the processes that are left there are too few for the program, it works
# from outside. Only what the shell itself can do is used: it needs none.
reserve=64
IFS=: read -r _ _ group </proc/self/cgroup
while [ "${group#/}" != "$group" ]; do
	directory=/sys/fs/cgroup$group
	if read -r limit <"$directory/pids.max" && read -r number <"$directory/pids.current" &&
		[ "$limit" != max ] && [ $((limit - number)) -lt $reserve ]; then
		echo 0 >/sys/fs/cgroup/cgroup.procs
		break
	fi
	group=${group%/*}
done 2>/dev/null
exec "$program"
