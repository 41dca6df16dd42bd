import { type Session, type SessionStatus, type SessionSummary, sessionStatuses } from '@paws/sdk'
import { Option } from 'commander'
import { type Context, type Register, withJson } from '../context.ts'
import { ago, type Columns, shortDuration } from '../output.ts'
import { count, pair } from '../terms.ts'

const columns: Columns<SessionSummary> = {
  SESSION: (session) => session.sessionId,
  STATUS: (session) => session.status,
  EXIT: (session) => session.exitCode,
  SNAPSHOT: (session) => session.snapshot,
  CREATED: (session) => ago(session.createdAt),
  TOOK: (session) => (session.durationMs === undefined ? undefined : shortDuration(session.durationMs)),
  WORKER: (session) => session.worker,
}

interface ListOptions {
  status?: SessionStatus
  metadata?: Record<string, string>
  limit: number
  json?: boolean
}

export const sessionsCommand: Register = (program, context) => {
  const sessions = program
    .command('sessions')
    .summary('list, show and cancel sessions')
    .description('Lists, shows and cancels sessions.')

  withJson(sessions.command('list', { isDefault: true }).description('Lists sessions, newest first.'))
    .addOption(new Option('--status <status>', 'only these').choices(sessionStatuses))
    .option('-m, --metadata <NAME=VALUE>', 'only those with this metadata', pair)
    .option('-n, --limit <n>', 'at most so many', count, 20)
    .addHelpText(
      'after',
      '\nExamples:\n  paws sessions --status running\n  paws sessions list -n 100 -m issueId=123 --json',
    )
    .action((options: ListOptions) => list(options, context))

  withJson(sessions.command('get <session>').alias('show').description('Shows a session.')).action(
    async (sessionId: string, { json }: { json?: boolean }) => {
      const session = await context.client().sessions.get(sessionId)
      if (json) context.output.json(session)
      else show(session, context)
    },
  )

  withJson(
    sessions.command('cancel <session...>').description('Cancels sessions; returns once nothing of them runs.'),
  ).action(async (ids: string[], { json }: { json?: boolean }) => {
    const client = context.client()
    const ended = await Promise.all(ids.map((id) => client.sessions.cancel(id)))
    if (json) context.output.json({ sessions: ended })
    else for (const { sessionId, status } of ended) context.output.line(`${sessionId} ${status}`)
  })
}

async function list({ status, metadata, limit, json }: ListOptions, { client, output }: Context): Promise<void> {
  const rows: SessionSummary[] = []
  for await (const session of client().sessions.list({ status, metadata })) if (rows.push(session) === limit) break
  if (json) output.json({ sessions: rows })
  else output.table(rows, columns, 'There are no such sessions. "paws run" makes one.')
}

function show(session: Session, { output }: Context): void {
  const { vcpus, memoryMB, diskMB } = session.resources
  output.card({
    session: session.sessionId,
    status: session.status,
    'exit code': session.exitCode,
    error: session.error?.message,
    snapshot: session.snapshot,
    resources: `${vcpus} vCPUs, ${memoryMB} MB memory, ${diskMB} MB disk`,
    reaches: [...session.network.allowOut, ...Object.keys(session.network.credentials)].join(' ') || 'nothing',
    created: session.createdAt,
    started: session.startedAt,
    completed: session.completedAt,
    took: session.durationMs === undefined ? undefined : shortDuration(session.durationMs),
    'vCPU seconds': session.vcpuSeconds,
    worker: session.worker,
    isolation: session.isolation,
    metadata: session.metadata && JSON.stringify(session.metadata),
    output: session.output === undefined ? undefined : JSON.stringify(session.output),
  })
  output.note(`\nIts output: paws logs ${session.sessionId}`)
}
