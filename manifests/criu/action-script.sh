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

# limited reports whether a control group limits the resources that the program needs.
limited() {
	for file in pids.max memory.max memory.high memory.limit_in_bytes; do
		if read -r limit <"$1/$file"; then
			case $limit in
			max | 922337203685477????) ;; # none; the number is that of version 1
			*) return 0 ;;
			esac
		fi
	done
	return 1
}

# runc starts CRIU in the container's control group. If that group or an ancestor has a
# limit, the program runs outside: its memory could make the kernel kill the container
# (memory.oom.group), or not be available. Without limits the move is not worth 6 ms.
while IFS=: read -r number controllers group; do
	case $number,$controllers, in
	0,,) root=/sys/fs/cgroup ;; # version 2: "0::/path"
	*,pids,* | *,memory,*) root=/sys/fs/cgroup/$controllers ;; # version 1: "9:pids:/path"
	*) continue ;;
	esac
	while [ "${group#/}" ]; do
		if limited "$root$group"; then
			# the first is refused in a node that is a container itself
			for outside in "$root" "$root/init.scope" "$root/init"; do
				[ -e "$outside/cgroup.procs" ] && echo 0 >"$outside/cgroup.procs" && break
			done
			break
		fi
		group=${group%/*}
	done
done 2>/dev/null </proc/self/cgroup
# A program that cannot be executed, as one that is being written, fails no restore either.
# A shell ends then: bash continues with this option, others run the trap.
# shellcheck disable=SC3044
[ "${BASH_VERSION-}" ] && shopt -s execfail
trap 'exit 0' EXIT
exec "$program"
