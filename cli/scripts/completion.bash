# bash completion for quorate: source <(quorate completion bash)
# The line is handed over as text: nothing of it is expanded or run.
_quorate() {
	local quorate=quorate answer line first=1 i
	COMPREPLY=()
	[[ ${COMP_WORDS[0]} == */* ]] && quorate=${COMP_WORDS[0]}
	answer=$("$quorate" COMPLETE_WORD bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null </dev/null) || return 0
	while IFS= read -r line; do
		if ((first)); then
			first=0
			case $line in
			files) compopt -o default 2>/dev/null ;;
			dirs) compopt -o dirnames 2>/dev/null ;;
			command)
				for ((i = 1; i < COMP_CWORD; i++)); do
					[[ ${COMP_WORDS[i]} == -- ]] && break
				done
				if ((COMP_CWORD == i + 1)); then
					while IFS= read -r line; do
						COMPREPLY+=("$line")
					done < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
				fi
				compopt -o default 2>/dev/null
				;;
			esac
		else
			COMPREPLY+=("$line")
		fi
	done <<<"$answer"
	return 0
}
complete -F _quorate quorate
