# fish completion for quorate: quorate completion fish > ~/.config/fish/completions/quorate.fish
# Words are handed over as text: nothing of them is expanded or run.
function __quorate_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    test (count $current) -eq 0; and set current ''
    set -l quorate quorate
    string match -q -- '*/*' $words[1]; and set quorate $words[1]
    set -l answer (command $quorate COMPLETE_WORD fish $words[2..-1] $current[1] 2>/dev/null </dev/null)
    # Of --flag=value the value is completed.
    set -l flag (string match -r -- '^--[a-z-]+=' $current[1])
    set -l value (string replace -r -- '^--[a-z-]+=' '' $current[1])
    switch "$answer[1]"
        case files
            for path in (__fish_complete_path $value)
                printf '%s%s\n' "$flag" $path
            end
        case dirs
            for path in (__fish_complete_directories $value)
                printf '%s%s\n' "$flag" $path
            end
        case command
            if test "$words[-1]" = --
                __fish_complete_command
            else
                __fish_complete_path $current[1]
            end
        case '*'
            for line in $answer[2..-1]
                printf '%s\n' $line
            end
    end
end
complete -c quorate -f -k -a '(__quorate_complete)'
