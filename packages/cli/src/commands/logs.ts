import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { PawsClient } from '@paws/sdk'
import { type Register, withJson } from '../context.ts'

interface LogsOptions {
  follow?: boolean
  stdout?: boolean
  stderr?: boolean
  json?: boolean
}

const help = `
Examples:
  paws logs SESSION                 its stdout on stdout, its stderr on stderr
  paws logs -f SESSION              the same, until it has ended
  paws logs --stderr SESSION | grep -i error

Without -f the output comes byte for byte as it was written; with it, bytes that are not UTF-8 are shown as U+FFFD.
With --json and -f every event is one line of JSON.`

export const logsCommand: Register = (program, context) => {
  withJson(
    program
      .command('logs <session>')
      .summary('show the output of a session')
      .description('Shows the output of a session, running or ended.'),
  )
    .option('-f, --follow', 'go on until it has ended')
    .option('--stdout', 'only its stdout')
    .option('--stderr', 'only its stderr, on stdout')
    .addHelpText('after', help)
    .action(async (sessionId: string, options: LogsOptions) => {
      const client = context.client()
      if (options.json && !options.follow) {
        const { stdout, stderr, truncated } = await client.sessions.get(sessionId)
        context.output.json({ sessionId, stdout, stderr, truncated })
      } else if (options.follow) await follow(client, sessionId, options)
      else await show(client, sessionId, options)
    })
}

async function show(client: PawsClient, sessionId: string, options: LogsOptions): Promise<void> {
  for (const { stream, to } of targets(options)) {
    const bytes = await client.sessions.logs(sessionId, { stream })
    await pipeline(Readable.fromWeb(bytes), to, { end: false })
  }
}

async function follow(client: PawsClient, sessionId: string, options: LogsOptions): Promise<void> {
  const wanted = new Map(targets(options).map(({ stream, to }) => [stream as string, to]))
  for await (const event of client.sessions.events(sessionId)) {
    if (options.json) process.stdout.write(`${JSON.stringify(event)}\n`)
    else if (event.event === 'stdout' || event.event === 'stderr') wanted.get(event.event)?.write(event.data.text)
  }
}

function targets({ stdout, stderr }: LogsOptions) {
  const both = stdout === stderr
  return [
    ...(both || stdout ? [{ stream: 'stdout' as const, to: process.stdout }] : []),
    ...(both ? [{ stream: 'stderr' as const, to: process.stderr }] : []),
    ...(!both && stderr ? [{ stream: 'stderr' as const, to: process.stdout }] : []),
  ]
}
