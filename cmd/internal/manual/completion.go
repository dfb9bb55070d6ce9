package manual

import (
	"fmt"
	"strings"
)

// Values of options that are completed by more than words.
const (
	directory = "DIR"
	list      = "LIST"
)

const origin = "# Made by \"go generate ./cmd/...\" from the program's commands and options.\n"

// function is the name of a shell function for the program.
func (p *Program) function() string { return "_" + strings.ReplaceAll(p.Name, "-", "_") }

// Bash makes the completion for bash. containers is the verb that lists them.
func (p *Program) Bash(containers string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# Completion for bash.\n%s%s() {\n", origin, p.function())
	b.WriteString(`	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} words='' before=''
	COMPREPLY=()
	case ${COMP_WORDS[1]}:$previous in
`)
	for _, c := range p.Commands {
		for _, o := range c.Options {
			switch {
			case o.Value == directory:
				fmt.Fprintf(&b, "\t%s:--%s)\n\t\tcompopt -o filenames\n\t\tmapfile -t COMPREPLY < <(compgen -d -- \"$current\")\n\t\treturn\n\t\t;;\n", c.Name, o.Name)
			case o.Value == list:
				fmt.Fprintf(&b, "\t%s:--%s)\n\t\twords='%s'\n\t\t[[ $current != *,* ]] || before=${current%%,*},\n\t\tcurrent=${current##*,}\n\t\t;;\n", c.Name, o.Name, strings.Join(o.Words, " "))
			case o.Words != nil:
				fmt.Fprintf(&b, "\t%s:--%s) words='%s' ;;\n", c.Name, o.Name, strings.Join(o.Words, " "))
			}
		}
	}
	var names []string
	for _, c := range p.Commands {
		names = append(names, c.Name)
		var options strings.Builder
		for _, o := range c.Options {
			options.WriteString("--" + o.Name + " ")
		}
		quote, more := "'", ""
		if c.Container {
			quote, more = `"`, fmt.Sprintf(" $(%s %s 2>/dev/null)", p.Name, containers)
		}
		fmt.Fprintf(&b, "\t%s:*) words=%s%s--help%s%s ;;\n", c.Name, quote, options.String(), more, quote)
	}
	all := strings.Join(names, " ")
	fmt.Fprintf(&b, "\thelp:*) words='%s' ;;\n\tesac\n\t((COMP_CWORD > 1)) || words='%s help --help --version'\n", all, all)
	b.WriteString("\tmapfile -t COMPREPLY < <(compgen -P \"$before\" -W \"$words\" -- \"$current\")\n}\n")
	fmt.Fprintf(&b, "complete -F %s %s\n", p.function(), p.Name)
	return []byte(b.String())
}

// Zsh makes the completion for zsh.
func (p *Program) Zsh(containers string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "#compdef %s\n# Completion for zsh.\n%slocal -a commands containers\ncommands=(\n", p.Name, origin)
	for _, c := range p.Commands {
		fmt.Fprintf(&b, "\t'%s:%s'\n", c.Name, zshText(c.Summary))
	}
	b.WriteString("\t'help:show the help of a command'\n)\nif ((CURRENT == 2)); then\n\t_describe command commands\n\treturn\nfi\nlocal name=$words[2]\nshift words\n((CURRENT--))\ncase $name in\n")
	for _, c := range p.Commands {
		fmt.Fprintf(&b, "%s)\n", c.Name)
		if c.Container {
			fmt.Fprintf(&b, "\tcontainers=(${(f)\"$(_call_program containers %s %s 2>/dev/null)\"})\n", p.Name, containers)
		}
		b.WriteString("\t_arguments")
		for _, o := range c.Options {
			fmt.Fprintf(&b, " \\\n\t\t'--%s[%s]", o.Name, zshText(o.Usage))
			switch {
			case o.Value == directory:
				b.WriteString(":directory:_directories'")
			case o.Value == list:
				fmt.Fprintf(&b, ":list:_values -s , %s %s'", o.Name, strings.Join(o.Words, " "))
			case o.Value != "":
				fmt.Fprintf(&b, ":value:(%s)'", strings.Join(o.Words, " "))
			default:
				b.WriteString("'")
			}
		}
		b.WriteString(" \\\n\t\t'--help[show the help of the command]'")
		if c.Container {
			b.WriteString(" \\\n\t\t'*:container:compadd -a containers'")
		}
		b.WriteString("\n\t;;\n")
	}
	b.WriteString("help) _describe command commands ;;\nesac\n")
	return []byte(b.String())
}

// zshText makes a description safe between quotes, brackets and colons.
func zshText(text string) string {
	return strings.NewReplacer("'", `'\''`, "[", `\[`, "]", `\]`, ":", `\:`).Replace(text)
}

// Fish makes the completion for fish.
func (p *Program) Fish(containers string) []byte {
	var b strings.Builder
	line := func(condition, rest string) { fmt.Fprintf(&b, "complete -c %s -n '%s' %s\n", p.Name, condition, rest) }
	fmt.Fprintf(&b, "# Completion for fish.\n%scomplete -c %s -f\n", origin, p.Name)
	var names []string
	for _, c := range p.Commands {
		line("__fish_use_subcommand", fmt.Sprintf("-a %s -d '%s'", c.Name, fishText(c.Summary)))
		names = append(names, c.Name)
	}
	line("__fish_use_subcommand", "-a help -d 'show the help of a command'")
	line("__fish_seen_subcommand_from help", fmt.Sprintf("-a '%s'", strings.Join(names, " ")))
	for _, c := range p.Commands {
		seen := "__fish_seen_subcommand_from " + c.Name
		for _, o := range c.Options {
			value := ""
			switch {
			case o.Value == directory:
				value = " -r -a '(__fish_complete_directories)'"
			case o.Value == list:
				value = fmt.Sprintf(" -x -a '(__fish_append , %s)'", strings.Join(o.Words, " "))
			case o.Value != "":
				value = fmt.Sprintf(" -x -a '%s'", strings.Join(o.Words, " "))
			}
			line(seen, fmt.Sprintf("-l %s%s -d '%s'", o.Name, value, fishText(o.Usage)))
		}
		line(seen, "-l help -d 'show the help of the command'")
		if c.Container {
			line(seen, fmt.Sprintf("-a '(%s %s 2>/dev/null)'", p.Name, containers))
		}
	}
	return []byte(b.String())
}

func fishText(text string) string { return strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) }
