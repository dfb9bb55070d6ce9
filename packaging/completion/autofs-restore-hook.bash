# Completion for bash.
# Made by "go generate ./cmd/..." from the program's commands and options.
_autofs_restore_hook() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} words='' before=''
	COMPREPLY=()
	case ${COMP_WORDS[1]}:$previous in
	repair:--strategy) words='auto reexec restart' ;;
	install:--engine)
		words='criu podman crio containerd all'
		[[ $current != *,* ]] || before=${current%,*},
		current=${current##*,}
		;;
	install:--root)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -d -- "$current")
		return
		;;
	install:--prefix)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -d -- "$current")
		return
		;;
	uninstall:--engine)
		words='criu podman crio containerd all'
		[[ $current != *,* ]] || before=${current%,*},
		current=${current##*,}
		;;
	uninstall:--root)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -d -- "$current")
		return
		;;
	uninstall:--prefix)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -d -- "$current")
		return
		;;
	inspect:*) words="--all --json --help $(autofs-restore-hook list-containers 2>/dev/null)" ;;
	repair:*) words="--all --json --strategy --kill-waiters --help $(autofs-restore-hook list-containers 2>/dev/null)" ;;
	install:*) words='--engine --root --prefix --force-irmap --dry-run --help' ;;
	uninstall:*) words='--engine --root --prefix --dry-run --help' ;;
	doctor:*) words='--json --help' ;;
	version:*) words='--json --help' ;;
	help:*) words='inspect repair install uninstall doctor version' ;;
	esac
	((COMP_CWORD > 1)) || words='inspect repair install uninstall doctor version help --help --version'
	mapfile -t COMPREPLY < <(compgen -P "$before" -W "$words" -- "$current")
}
complete -F _autofs_restore_hook autofs-restore-hook
