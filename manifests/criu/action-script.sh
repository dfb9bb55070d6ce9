#!/bin/sh
# For CRIU, which calls this at every stage. Written by autofs-restore-hook(8).
case ${CRTOOLS_SCRIPT_ACTION-} in
pre-restore | pre-resume | post-resume) ;;
post-setup-namespaces)
	# nothing to prepare for a container without automounts
	set -- "$CRTOOLS_IMAGE_DIR"/autofs-*.img
	[ -e "$1" ] || exit 0
	;;
*) exit 0 ;;
esac

program=@PROGRAM@
if ! [ -f "$program" ] || ! [ -x "$program" ]; then
	trap '' PIPE
	echo "autofs-restore-hook: $program is missing: automounts are not repaired" >&2
	exit 0
fi

# runc has CRIU run in the container's control group. If too few processes are left
# there for the program, it works from outside.
reserve=64
while IFS=: read -r number controllers group; do
	case $number,$controllers, in
	0,,) root=/sys/fs/cgroup ;; # cgroup v2: "0::/path"
	*,pids,*) root=/sys/fs/cgroup/pids ;; # cgroup v1: "9:pids:/path"
	*) continue ;;
	esac
	while [ "${group#/}" != "$group" ]; do
		if read -r limit <"$root$group/pids.max" && read -r used <"$root$group/pids.current" &&
			[ "$limit" != max ] && [ $((limit - used)) -lt $reserve ]; then
			# the first is refused in a node that is a container itself
			echo 0 >"$root/cgroup.procs" || echo 0 >"$root/init.scope/cgroup.procs" || echo 0 >"$root/init/cgroup.procs" || :
			break
		fi
		group=${group%/*}
	done
done 2>/dev/null </proc/self/cgroup
exec "$program"
