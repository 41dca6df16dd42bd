import { existsSync } from 'node:fs'
import type { CreateSession, EgressRecord, PawsClient, Session } from '@paws/sdk'
import { Option } from 'commander'
import { type Context, type Register, readText } from '../context.ts'
import { summaryOf } from '../egress-reasons.ts'
import { Exit, exitCodes, notTheWorkloads, usageError } from '../errors.ts'
import { credentialsOf, credentialTerm, type Given, hosts } from '../network-terms.ts'
import { durationMs, envPair, pair, sizeMB, wholeNumber } from '../terms.ts'

interface RunOptions {
  file?: string
  snapshot: string
  env?: Record<string, string>
  timeout?: number
  vcpus?: number
  memory?: number
  disk?: number
  metadata?: Record<string, string>
  allow?: string[]
  credential?: Given[]
  placeholder?: Given[]
  audit?: boolean
  isolation?: CreateSession['isolation']
  callback?: string
  detach?: boolean
  json?: boolean
}

const help = `
Examples:
  paws run 'echo hello from $(hostname)'
  paws run --file build.sh --env TARGET=release --timeout 30m --memory 8g
  echo 'print(6 * 7)' | sed '1i #!/usr/bin/env python3' | paws run
  paws run --allow preset:npm 'npm install left-pad'
  paws run --credential 'api.anthropic.com: x-api-key=secret:ANTHROPIC_KEY' --file agent.sh
  paws run -s claude-code --placeholder 'api.anthropic.com: ANTHROPIC_API_KEY=secret:ANTHROPIC_KEY' 'claude -p hello'
  id=$(paws run --detach 'sleep 60'); paws logs -f $id

The script runs as root inside, in /workspace, by its #! line or bash. Its stdout and stderr come as they are written.
Ctrl-C cancels the session, and so does a reader like head(1) that leaves; a second one leaves it alone and goes.

Nothing gets out but to hosts that --allow, --credential or --placeholder name. A credential is added to requests on
their way out; the sandbox never holds it. Its value comes from a stored secret ("paws secrets") or from a variable
here: "HOST: HEADER=secret:NAME" or "=env:VARIABLE", with text before it as in "Authorization=Bearer secret:NAME".
A program that wants to see a key before it sends anything, like claude, gets a made-up one by --placeholder.

Exit codes: the script's own; 124 when its time ran out; 125 when paws could not run it; 130 when it was cancelled.`

export const runCommand: Register = (program, context) => {
  program
    .command('run')
    .summary('run a script in a sandbox and see its output')
    .description('Runs a script in a throw-away sandbox, shows its output live, and ends with its exit code.')
    .argument('[script]', 'the script itself; without it, --file or stdin is read')
    .option('-f, --file <path>', 'read the script from a file, "-" for stdin')
    .option('-s, --snapshot <id>', 'what the sandbox starts from', 'minimal')
    .option(
      '-e, --env <NAME=VALUE>',
      'set a variable inside; NAME alone takes its value here',
      envPair(context.config.env),
    )
    .option('-t, --timeout <duration>', 'end it after this, like 30s or 10m (default: 10m)', durationMs)
    .option('--vcpus <n>', 'processors (default: 2)', wholeNumber)
    .option('--memory <size>', 'megabytes, or like 4g (default: 4096)', sizeMB)
    .option('--disk <size>', 'megabytes, or like 10g (default: 10240)', sizeMB)
    .option('-m, --metadata <NAME=VALUE>', 'attach a value, to find it by later', pair)
    .option('--allow <host>', 'may be reached: a name, *.example.com, or preset:npm, preset:debian, preset:pypi', hosts)
    .option(
      '--credential <HOST: HEADER=SOURCE>',
      'a header for a host; SOURCE is secret:NAME or env:VARIABLE',
      credentialTerm('headers', context.config.env),
    )
    .option(
      '--placeholder <HOST: VARIABLE=SOURCE>',
      'a variable inside whose made-up value becomes the real one on the way to a host',
      credentialTerm('placeholders', context.config.env),
    )
    .option('--audit', 'record every outgoing request, for "paws egress"')
    .addOption(new Option('--isolation <kind>', 'the weakest that will do').choices(['any', 'vm']))
    .option('--callback <url>', 'https URL that is told the result')
    .option('-d, --detach', "print the session's id and don't wait")
    .option('--json', 'print the ended session as JSON instead of its output')
    .addHelpText('after', help)
    .action((script: string | undefined, options: RunOptions) => notTheWorkloads(run(script, options, context)))
}

async function run(argument: string | undefined, options: RunOptions, context: Context): Promise<void> {
  const body = requestOf(await scriptOf(argument, options.file), options)
  const client = context.client()
  const accepted = await client.sessions.create(body)
  if (options.detach) return options.json ? context.output.json(accepted) : context.output.line(accepted.sessionId)
  const session = await follow(client, accepted.sessionId, options, context)
  if (options.json) context.output.json(session)
  process.exitCode = exitCodeOf(session, context)
  if (!options.json && (process.exitCode !== 0 || process.stderr.isTTY)) await tellRefusals(client, session, context)
  if (session.exitCode === 127 && argument !== undefined && existsSync(argument)) {
    context.output.note(`paws: "${argument}" is a file here, not in the sandbox. To run it there: --file ${argument}`)
  }
}

async function scriptOf(argument: string | undefined, file: string | undefined): Promise<string> {
  if (argument !== undefined && file !== undefined) throw usageError('Give the script or --file, not both.')
  if (argument !== undefined && argument !== '-') return notEmpty(argument)
  if (file === undefined && argument === undefined && process.stdin.isTTY) {
    throw usageError(
      'There is no script. Give it as an argument, by --file, or through a pipe; "paws run --help" has examples.',
    )
  }
  return notEmpty(await readText(file ?? '-'))
}

function notEmpty(script: string): string {
  if (script === '') throw usageError('The script is empty.')
  return script
}

function requestOf(script: string, options: RunOptions): CreateSession {
  const { snapshot, env, timeout, vcpus, memory, disk, metadata, isolation, callback } = options
  const { allow, credential = [], placeholder = [], audit } = options
  return {
    snapshot,
    workload: { type: 'script', script, env },
    resources: { vcpus, memoryMB: memory, diskMB: disk },
    timeoutMs: timeout,
    metadata,
    network: { allowOut: allow, credentials: credentialsOf([...credential, ...placeholder]), auditLog: audit },
    isolation,
    callbackUrl: callback,
  }
}

const endings = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** Shows the session's output until it has ended. The first Ctrl-C cancels it, the second stops following. */
async function follow(
  client: PawsClient,
  sessionId: string,
  { json }: RunOptions,
  { output }: Context,
): Promise<Session> {
  const leave = new AbortController()
  let cancelling: Promise<unknown> | undefined
  const cancel = () => {
    cancelling ??= client.sessions.cancel(sessionId).catch((error) => leave.abort(error))
  }
  const onSignal = () => {
    if (cancelling) return leave.abort(new Exit(exitCodes.cancelled, `Session ${sessionId} may still run.`))
    output.note('Cancelling; once more to leave it.')
    cancel()
  }
  for (const name of endings) process.on(name, onSignal)
  process.stdout.on('error', cancel)
  try {
    return await client.sessions.wait(sessionId, {
      signal: leave.signal,
      onEvent({ event, data }) {
        if (json) return
        if (event === 'stdout') process.stdout.write(data.text)
        if (event === 'stderr') process.stderr.write(data.text)
        if (event === 'status' && data.status === 'pending' && data.reason) output.note(`paws: ${data.reason}`)
      },
    })
  } finally {
    for (const name of endings) process.off(name, onSignal)
    process.stdout.off('error', cancel)
  }
}

// Clients inside only say that a name does not resolve. Programs try many hosts in vain and succeed nevertheless: then
// it is said on a terminal alone.
async function tellRefusals(client: PawsClient, { sessionId }: Session, { output }: Context): Promise<void> {
  const records: EgressRecord[] = []
  for await (const record of client.sessions.egress(sessionId)) {
    if (records.push(record) === looked) break
  }
  const summary = summaryOf(records)
  if (summary) output.note(`paws: did not get through: ${summary}. Why: paws egress ${sessionId}`)
}

/** How many of the newest requests are looked at for those that got nowhere. */
const looked = 200

function exitCodeOf({ sessionId, status, exitCode, error, timeoutMs }: Session, { output }: Context): number {
  if (status === 'timeout')
    output.note(`paws: session ${sessionId} ran past its ${timeoutMs / 1000} s. --timeout allows more.`)
  if (status === 'cancelled') output.note(`paws: session ${sessionId} was cancelled.`)
  if (error) output.note(`paws: session ${sessionId}: ${error.message}`)
  if (status === 'timeout') return exitCodes.timeout
  if (status === 'cancelled') return exitCodes.cancelled
  return exitCode ?? exitCodes.notRun
}
