import { styleText } from 'node:util'
import type { Command } from 'commander'
import type { CliConfig } from '../config.ts'
import { examine } from './doctor.ts'
import { type Finding, stateMarks } from './finding.ts'

const colours = { ok: 'green', limited: 'yellow', missing: 'red' } as const

/** Registers `doctor`. Exit code 1 when something is missing without which `up` can't work. */
export function doctorCommand(program: Command, config: CliConfig): void {
  program
    .command('doctor')
    .summary('say what this host can and can’t do, and how to mend it')
    .description('Looks at everything that paws needs of this host: ✓ fine, ~ works with less, ✗ must be mended first.')
    .option('--json', 'print {"findings":[…]}, each with name, state, found, means, mend')
    .action(async ({ json }: { json?: boolean }) => {
      const findings = await examine(config)
      console.log(json ? JSON.stringify({ findings }) : findings.map(show).join('\n'))
      const missing = findings.filter(({ state }) => state === 'missing').length
      if (!json) console.log(missing === 0 ? '\nThis host can run paws.' : `\nTo be mended first: ${missing}.`)
      if (missing > 0) process.exitCode = 1
    })
}

function show({ name, state, found, means, mend }: Finding): string {
  const indent = ' '.repeat(20)
  const lines = [`${styleText(colours[state], stateMarks[state])} ${name.padEnd(17)} ${found}`]
  if (means) lines.push(`${indent}${means}`)
  if (mend) lines.push(`${indent}→ ${mend}`)
  return lines.join('\n')
}
