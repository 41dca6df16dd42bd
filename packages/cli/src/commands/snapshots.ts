import type { Build, PawsClient, Snapshot } from '@paws/sdk'
import { type Context, type Register, withJson } from '../context.ts'
import { Exit, exitCodes } from '../errors.ts'
import { ago, type Columns, megabytes } from '../output.ts'
import { addConfigCommands } from './snapshot-configs.ts'

type Json = { json?: boolean }

const columns: Columns<Snapshot> = {
  SNAPSHOT: (snapshot) => snapshot.id,
  STATUS: (snapshot) => snapshot.status,
  VERSION: (snapshot) => snapshot.version,
  SIZE: (snapshot) => megabytes(snapshot.sizeBytes),
  BUILT: (snapshot) => ago(snapshot.builtAt),
  WORKERS: (snapshot) => snapshot.workers.join(' ') || undefined,
  DIGEST: (snapshot) => snapshot.digest?.slice(0, 19),
}

const help = `
Examples:
  paws snapshots
  paws snapshots build minimal
  paws snapshots create tools --template node --setup setup.sh --require preset:npm
  paws snapshots build tools

A config says how a snapshot of your own is made: by a setup that runs in a template. The setup reaches the hosts that
it requires and no others. A session that names a snapshot which isn't built has it built, and waits.`

export const snapshotsCommand: Register = (program, context) => {
  const snapshots = program
    .command('snapshots')
    .summary('make, list and build what sandboxes start from')
    .description('What sandboxes start from: makes, lists and builds snapshots.')
    .addHelpText('after', help)
  const { output } = context

  withJson(snapshots.command('list', { isDefault: true }).description('Lists the snapshots.')).action(
    async ({ json }: Json) => {
      const rows = await context.client().snapshots.list()
      if (json) output.json({ snapshots: rows })
      else output.table(rows, columns, 'There are no snapshots.')
    },
  )

  withJson(snapshots.command('templates').description('Lists the templates that paws brings.')).action(
    async ({ json }: Json) => {
      const rows = await context.client().snapshots.templates()
      if (json) output.json({ templates: rows })
      else
        output.table(
          rows,
          { TEMPLATE: (row) => row.id, DESCRIPTION: (row) => row.description },
          'There are no templates.',
        )
    },
  )

  withJson(snapshots.command('get <id>').alias('show').description('Shows a snapshot.')).action(
    async (id: string, { json }: Json) => {
      const { workers, isolation, sizeBytes, ...snapshot } = await context.client().snapshots.get(id)
      if (json) return output.json({ workers, isolation, sizeBytes, ...snapshot })
      const size = megabytes(sizeBytes)
      output.card({
        ...snapshot,
        size,
        isolation: isolation.join(', ') || undefined,
        workers: workers.join(', ') || undefined,
      })
    },
  )

  withJson(
    snapshots
      .command('build <id>')
      .description('Builds a snapshot, showing its log. The last good one serves until it is done.'),
  )
    .option('-d, --detach', "don't wait")
    .action(async (id: string, { json, detach }: Json & { detach?: boolean }) => {
      const client = context.client()
      const started = await client.snapshots.build(id)
      if (detach) return json ? output.json(started) : output.line(started.jobId)
      const build = await watch(client, id, started.jobId, context)
      if (json) output.json(build)
      else if (build.status === 'ready') output.line(`${id} is ready: ${build.digest}`)
      if (build.status !== 'ready') {
        const { version } = await client.snapshots.get(id)
        const serving = version === undefined ? '' : `\nVersion ${version}, built before, serves on.`
        throw new Exit(exitCodes.failed, `The build of "${id}" failed: ${build.error ?? build.status}${serving}`)
      }
    })

  addConfigCommands(snapshots, context)
}

/** The log goes to stderr as it comes; on a terminal the last line tells how far it is. */
async function watch(client: PawsClient, id: string, jobId: string, { output }: Context): Promise<Build> {
  const live = process.stderr.isTTY
  const clear = live ? '\r\x1b[K' : ''
  let progressLine = ''
  let lineOpen = false
  const leave = new AbortController()
  const onSignal = () => {
    leave.abort(new Exit(exitCodes.cancelled, `The build goes on. "paws snapshots build ${id}" shows it again.`))
  }
  process.once('SIGINT', onSignal)
  try {
    return await client.snapshots.waitForBuild(id, jobId, {
      signal: leave.signal,
      onEvent({ event, data }) {
        if (event === 'log') {
          process.stderr.write(clear + data.text)
          lineOpen = !data.text.endsWith('\n')
        } else if (event === 'progress')
          progressLine = `${Math.round(data.progress * 100)} % ${data.step ?? data.status}`
        if (live && !lineOpen) process.stderr.write(clear + output.paint('dim', progressLine))
      },
    })
  } finally {
    process.off('SIGINT', onSignal)
    process.stderr.write(clear)
  }
}
