# Completion for bash.
_autofs_restore_hook() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} words=
	COMPREPLY=()
	case $previous in
	--engine) words='criu podman crio containerd all' ;;
	--strategy) words='auto reexec restart' ;;
	--root | --prefix)
		mapfile -t COMPREPLY < <(compgen -d -- "$current")
		return
		;;
	*)
		case ${COMP_WORDS[1]} in
		inspect) words='--json' ;;
		repair) words='--json --strategy --kill-waiters' ;;
		install) words='--engine --force-irmap --root --prefix --dry-run' ;;
		uninstall) words='--engine --root --prefix --dry-run' ;;
		doctor | version) words='--json' ;;
		esac
		((COMP_CWORD > 1)) || words='inspect repair install uninstall doctor version help'
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _autofs_restore_hook autofs-restore-hook
