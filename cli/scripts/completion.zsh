#compdef quorate
# zsh completion for quorate: source <(quorate completion zsh), after compinit; or a file _quorate in $fpath.
# Words are handed over as text: nothing of them is expanded or run.
_quorate() {
	local quorate=quorate line
	local -a answer values
	[[ $words[1] == */* ]] && quorate=$words[1]
	answer=("${(@f)$($quorate COMPLETE_WORD zsh "${(@Q)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null </dev/null)}")
	case $answer[1] in
	files)
		compset -P '*='
		_files
		;;
	dirs)
		compset -P '*='
		_files -/
		;;
	command)
		if (( CURRENT == ${words[(i)--]} + 1 )); then
			_alternative 'commands:command:_command_names -e' 'files:file:_files'
		else
			_files
		fi
		;;
	*)
		for line in "${(@)answer[2,-1]}"; do
			[[ -n $line ]] || continue
			if [[ $line == *$'\t'* ]]; then
				values+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
			else
				values+=("${line//:/\\:}")
			fi
		done
		(( $#values )) && _describe -V quorate values
		;;
	esac
}
if [[ $funcstack[1] == _quorate ]]; then
	_quorate "$@"
elif (( $+functions[compdef] )); then
	compdef _quorate quorate
fi
