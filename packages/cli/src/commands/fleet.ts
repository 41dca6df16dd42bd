import type { Fleet, Worker } from '@paws/sdk'
import { type Context, type Register, withJson } from '../context.ts'
import { ago, type Columns } from '../output.ts'
import { durationMs } from '../terms.ts'

type Json = { json?: boolean }

const columns: Columns<Worker> = {
  WORKER: (worker) => worker.name,
  STATUS: (worker) => worker.status,
  SESSIONS: ({ capacity }) => `${capacity.running}/${capacity.max}`,
  ISOLATION: (worker) => worker.isolation,
  VCPUS: ({ resources }) => resources.vcpus,
  'MEMORY MB': ({ resources }) => resources.memoryMB,
  VERSION: (worker) => worker.version,
  'LAST SEEN': (worker) => ago(worker.lastSeenAt),
}

const help = `
Examples:
  paws fleet
  paws fleet drain worker-1       no new sessions; what runs there ends by itself
  paws fleet undrain worker-1     it takes new sessions again
  paws fleet remove worker-1      its credential ends at once
  paws fleet token --expires 10m  for: paws worker --join URL --token TOKEN

Only for keys of the operator's organization with the scope fleet:admin.`

export const fleetCommand: Register = (program, context) => {
  const fleet = program
    .command('fleet')
    .summary('see the workers; let them join and leave')
    .description('The workers: how many, how busy, who joins and leaves.')
    .addHelpText('after', help)
  const { output } = context

  withJson(
    fleet.command('show', { isDefault: true }).description('Counts workers and sessions, and lists the workers.'),
  ).action(async ({ json }: Json) => {
    const client = context.client()
    const [counts, workers] = await Promise.all([client.fleet.get(), client.fleet.workers()])
    if (json) return output.json({ ...counts, workers })
    showCounts(counts, context)
    output.line('')
    showWorkers(workers, context)
  })

  withJson(fleet.command('workers').description('Lists the workers.')).action(async ({ json }: Json) => {
    const workers = await context.client().fleet.workers()
    if (json) output.json({ workers })
    else showWorkers(workers, context)
  })

  withJson(fleet.command('drain <worker>').description('Gives a worker no new sessions.')).action(
    async (name: string, { json }: Json) => {
      const worker = await context.client().fleet.drain(name)
      if (json) output.json(worker)
      else {
        output.line(`${name} is draining; ${worker.capacity.running} sessions still run there.`)
        output.note(`"paws fleet undrain ${name}" takes it back.`)
      }
    },
  )

  withJson(fleet.command('undrain <worker>').description('Gives it new sessions again.')).action(
    async (name: string, { json }: Json) => {
      const worker = await context.client().fleet.undrain(name)
      if (json) output.json(worker)
      else output.line(`${name} takes sessions again.`)
    },
  )

  withJson(fleet.command('remove <worker>').description('Removes a worker; drain it first to lose nothing.')).action(
    async (name: string, { json }: Json) => {
      await context.client().fleet.remove(name)
      if (json) output.json({ name, removed: true })
      else output.line(`${name} is removed.`)
    },
  )

  withJson(fleet.command('token').description('Makes a token that enrols one worker, once.'))
    .option('--expires <duration>', 'how long it can be used (default: 1h)', durationMs)
    .action(async ({ expires, json }: Json & { expires?: number }) => {
      const made = await context.client().fleet.createEnrolmentToken({ expiresInMs: expires })
      if (json) return output.json(made)
      output.note(`Until ${made.expiresAt}, on the new machine:`)
      output.note(`  ./paws worker --join ${context.credentials().url} --token TOKEN`)
      output.line(made.token)
    })
}

function showCounts(counts: Fleet, { output }: Context): void {
  output.card({
    workers: `${counts.healthyWorkers} healthy of ${counts.totalWorkers}`,
    capacity: `${counts.usedCapacity} of ${counts.totalCapacity} sessions`,
    queued: counts.queuedSessions,
    daemons: counts.activeDaemons,
  })
}

function showWorkers(workers: Worker[], { output }: Context): void {
  output.table(workers, columns, 'There are no workers. "paws fleet token" lets one in.')
  for (const { name, limitations } of workers) {
    for (const limitation of limitations) output.note(`${name}: ${limitation}`)
  }
}
