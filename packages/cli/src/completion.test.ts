import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { completionScript } from './commands/completion.ts'
import { readConfig } from './config.ts'
import { createProgram } from './program.ts'

const program = createProgram(readConfig({}))

/** What the real bash offers for a line whose last word is being typed. */
function offered(...words: string[]): string[] {
  const script = `${completionScript(program, 'bash')}
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _paws; printf '%s\\n' "\${COMPREPLY[@]}"`
  return execFileSync('bash', ['-c', script, 'bash', 'paws', ...words], { encoding: 'utf8' })
    .trim()
    .split('\n')
}

test('bash completes commands, their sub-commands and their options', () => {
  expect(offered('ses')).toEqual(['sessions'])
  expect(offered('keys', 'r')).toEqual(['revoke', 'rotate'])
  expect(offered('keys', '--json', 'rotate', '--o')).toEqual(['--org', '--overlap'])
  expect(offered('run', '--sn')).toEqual(['--snapshot'])
  expect(offered('run', '--a')).toEqual(['--allow', '--audit'])
  expect(offered('secrets', '')).toContain('set')
  expect(offered('sessions', 'run', '')).toContain('cancel')
})

test('every command stands in every script', () => {
  for (const shell of ['bash', 'zsh', 'fish'] as const) {
    for (const command of program.commands) expect(completionScript(program, shell)).toContain(command.name())
  }
})
