import type { Command } from 'commander'
import { Argument } from 'commander'
import type { Register } from '../context.ts'

const shells = ['bash', 'zsh', 'fish'] as const
type Shell = (typeof shells)[number]

const help = `
Examples:
  paws completion bash > ~/.local/share/bash-completion/completions/paws
  paws completion zsh  > ~/.zfunc/_paws       with "fpath+=~/.zfunc" before compinit
  paws completion fish > ~/.config/fish/completions/paws.fish`

export const completionCommand: Register = (program, { output }) => {
  program
    .command('completion')
    .summary('print the completion script for a shell')
    .description('Prints the completion script for a shell.')
    .addArgument(new Argument('<shell>').choices(shells))
    .addHelpText('after', help)
    .action((shell: Shell) => output.line(completionScript(program, shell)))
}

export function completionScript(program: Command, shell: Shell): string {
  return scripts[shell](nodesOf(program))
}

/** A command by the words that lead to it, with the words that may follow and what they mean. */
interface Node {
  path: string[]
  words: { word: string; means: string }[]
}

function nodesOf(command: Command, path: string[] = []): Node[] {
  const subs = command.commands.map((sub) => ({ word: sub.name(), means: sub.summary() || sub.description() }))
  const options = command.createHelp().visibleOptions(command)
  const words = options.flatMap((option) =>
    [option.long, option.short]
      .filter((word) => word !== undefined)
      .map((word) => ({ word, means: option.description })),
  )
  return [
    { path, words: [...subs, ...words] },
    ...command.commands.flatMap((sub) => nodesOf(sub, [...path, sub.name()])),
  ]
}

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`

/** Every script walks the words so far down the tree of commands, then offers what stands there, or files. */
const scripts: Record<Shell, (nodes: Node[]) => string> = {
  bash: (nodes) => `# bash completion for paws; made by "paws completion bash"
_paws() {
  local at='' word words i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    case "$at $word" in
${childPaths(nodes)
  .map((path) => `      ${quoted(`${path.slice(0, -1).join(' ')} ${path.at(-1)}`)}) at=${quoted(path.join(' '))} ;;`)
  .join('\n')}
    esac
  done
  case $at in
${nodes.map(({ path, words }) => `    ${quoted(path.join(' '))}) words=${quoted(words.map(({ word }) => word).join(' '))} ;;`).join('\n')}
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}")
}
complete -o default -F _paws paws ./paws`,

  zsh: (nodes) => `#compdef paws
# zsh completion for paws; made by "paws completion zsh"
_paws() {
  local at='' word
  local -a offers
  for word in \${words[2,CURRENT-1]}; do
    case "$at $word" in
${childPaths(nodes)
  .map((path) => `      ${quoted(`${path.slice(0, -1).join(' ')} ${path.at(-1)}`)}) at=${quoted(path.join(' '))} ;;`)
  .join('\n')}
    esac
  done
  case $at in
${nodes.map(({ path, words }) => `    ${quoted(path.join(' '))}) offers=(${words.map(({ word, means }) => quoted(`${word}:${means}`)).join(' ')}) ;;`).join('\n')}
  esac
  _describe 'paws' offers || _files
}
_paws "$@"`,

  fish: (nodes) => `# fish completion for paws; made by "paws completion fish"
${nodes.flatMap(({ path, words }) => words.map(({ word, means }) => fishLine(nodes, path, word, means))).join('\n')}`,
}

function fishLine(nodes: Node[], path: string[], word: string, means: string): string {
  const deeper = nodes.filter(
    (node) => node.path.length === path.length + 1 && path.every((part, i) => node.path[i] === part),
  )
  const unless = deeper.map((node) => node.path.at(-1)).join(' ')
  const conditions = [
    ...path.map((part) => `__fish_seen_subcommand_from ${part}`),
    ...(unless ? [`not __fish_seen_subcommand_from ${unless}`] : []),
  ]
  const when = conditions.length > 0 ? ` -n ${quoted(conditions.join('; and '))}` : ''
  const what = word.startsWith('--')
    ? `-l ${word.slice(2)}`
    : word.startsWith('-')
      ? `-s ${word.slice(1)}`
      : `-a ${word}`
  return `complete -c paws${when} ${what} -d ${quoted(means)}`
}

function childPaths(nodes: Node[]): string[][] {
  return nodes.map(({ path }) => path).filter((path) => path.length > 0)
}
