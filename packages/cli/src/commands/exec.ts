import { buffer } from 'node:stream/consumers'
import type { ExecCommand } from '@paws/sdk'
import { type Context, type Register, withJson } from '../context.ts'
import { Exit, exitCodes, notTheWorkloads, usageError } from '../errors.ts'
import { attachTerminal } from '../terminal.ts'
import { durationMs, envPair } from '../terms.ts'

interface ExecOptions {
  terminal?: boolean
  stdin?: boolean
  env?: Record<string, string>
  cwd?: string
  timeout?: number
  json?: boolean
}

const help = `
Examples:
  paws exec SESSION -- ls -l /workspace
  paws exec SESSION -- bash -c 'echo $PATH | tr : "\\n"'
  echo '{"a":1}' | paws exec -i SESSION -- jq .a
  paws exec -t SESSION                 a login shell

No shell reads the command unless it is one; its own options stand after "--". Ctrl-C ends the command, not the session.

Exit codes: the command's own; 124 when its time ran out; 125 when paws could not run it.`

export const execCommand: Register = (program, context) => {
  withJson(program.command('exec'))
    .summary('run one more command in a running session')
    .description('Runs one more command in a running session, or opens a terminal in it.')
    .usage('[options] <session> -- <command...>')
    .argument('<session>')
    .argument('[command...]', 'program and arguments')
    .option('-t, --terminal', 'open a login shell here')
    .option('-i, --stdin', "give this one's stdin to the command, whole, at most 1 MiB of text")
    .option('-e, --env <NAME=VALUE>', 'set a variable; NAME alone takes its value here', envPair(context.config.env))
    .option('-w, --cwd <path>', 'where to run it (default: /workspace)')
    .option('--timeout <duration>', 'kill it after this, like 30s', durationMs)
    .addHelpText('after', help)
    .action((sessionId: string, command: string[], options: ExecOptions) =>
      notTheWorkloads(exec(sessionId, command, options, context)),
    )
}

async function exec(sessionId: string, command: string[], options: ExecOptions, context: Context): Promise<void> {
  if (options.terminal) {
    if (command.length > 0) throw usageError('A terminal opens a login shell: leave out the command, or -t.')
    process.exitCode = await attachTerminal(context.client(), sessionId)
    return
  }
  if (command.length === 0)
    throw usageError('There is no command. Write: paws exec SESSION -- COMMAND…, or -t for a terminal.')
  const { env, cwd, timeout: timeoutMs } = options
  const stdin = options.stdin ? await stdinText() : undefined
  const body: ExecCommand = { command, env, cwd, timeoutMs, stdin }
  const collected = { stdout: '', stderr: '' }
  for await (const { event, data } of context.client().sessions.exec(sessionId, body)) {
    if (event === 'error') throw new Exit(exitCodes.notRun, data.message)
    if (event === 'exit') {
      if (options.json) context.output.json({ ...collected, ...data })
      process.exitCode = data.timedOut ? exitCodes.timeout : data.exitCode
    } else if (options.json) collected[event] += data.text
    else process[event].write(data.text)
  }
}

/** The API takes text; anything else would arrive changed, which is worse than being refused. */
async function stdinText(): Promise<string> {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(await buffer(process.stdin))
  } catch (cause) {
    throw new Exit(exitCodes.usage, 'stdin is not UTF-8 text. Bring the bytes in by "paws cp" and read that file.', {
      cause,
    })
  }
}
