import { loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { createTestAuthority } from '../test/fakes/certificates.ts'
import { type Child, startChild } from './support/children.ts'
import type { ClientCommands, Way } from './support/egress-client.ts'
import type { HostCommands } from './support/egress-host.ts'
import { openSlots, type SlotsCommands } from './support/egress-slots.ts'
import { circumstances, hundredth, type Spread, spread } from './support/figures.ts'

/*
 * What it costs that all requests of a sandbox go through the egress process: one client, on verified TLS, in the
 * network of a real slot, and the same client beside it that reaches the host directly. TLS on both sides, the
 * credential added, answers searched for it, each request recorded; `bare` is the same proxy without the last two.
 * All in turn, in one run. Records are taken as they come, but not sent on to a control plane.
 */

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    durationMs: { type: 'string', default: '3000' },
    downloadMB: { type: 'string', default: '256' },
    slots: { type: 'string', default: '50' },
  },
})
const rounds = Number(options.rounds)
const downloadBytes = Number(options.downloadMB) * 1e6

const closers: (() => Promise<unknown>)[] = []

interface Side {
  client: Child<ClientCommands>
  way: Way
  /** A name that was not asked for yet */
  newName(): string
}

interface Sides {
  direct: Side
  proxy: Side
  bare: Side
}

async function openSides(): Promise<Sides> {
  const authority = await createTestAuthority()
  const ca = authority.certificate
  const names = Array.from({ length: rounds + 1 }, (_, at) => `host${at}.bench.test`)
  const host = startChild<HostCommands>('egress-host.ts', ['listen'])
  closers.push(host.close)
  const port = await host.listen(await authority.issue(names))
  const resolve = names.map((name): [string, string] => [`${name}:443`, `127.0.0.1:${port}`])
  const through = async (measured?: { scrub: boolean; audit: boolean }): Promise<Side> => {
    const slots = await openSlots(1, { resolve, extraCa: [ca], measure: measured })
    closers.push(slots.close)
    const [slot] = slots.made
    if (!slot) throw new Error('No slot was made')
    const { network, outlet } = slot
    const headers = { Authorization: `Bearer sk-ant-api03-${'0123456789-abcDEF_'.repeat(5)}` }
    const credentials = Object.fromEntries(names.map((name) => [name, { headers, placeholders: {} }]))
    const { certificate } = await outlet.allow({ allowOut: [], credentials, auditLog: true }, async () => undefined)
    return side(clientIn(network), { ca: certificate, port: 443 })
  }
  const side = (client: Child<ClientCommands>, way: Way): Side => {
    closers.push(client.close)
    const fresh = names.slice(1)
    return { client, way, newName: () => fresh.pop() ?? '' }
  }
  return {
    direct: side(startChild('egress-client.ts', clientCommands), { ca, address: '127.0.0.1', port }),
    proxy: await through(),
    bare: await through({ scrub: false, audit: false }),
  }
}

const clientCommands: (keyof ClientCommands)[] = ['rate', 'times', 'download', 'first']

/** Root enters a network as it is; others need the user namespace that owns it first. */
function clientIn({ user, net }: { user: number; net: number }): Child<ClientCommands> {
  const enter = process.getuid?.() === 0 ? [] : ['--user=/proc/self/fd/4', '--preserve-credentials']
  return startChild('egress-client.ts', clientCommands, {
    execPath: 'nsenter',
    execArgv: [...enter, '--net=/proc/self/fd/5', process.execPath],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc', user, net],
  })
}

/** The same thing on each side, in turn, so often. */
async function inTurn(sides: Sides, task: (side: Side) => Promise<number>) {
  const results: Record<keyof Sides, number[]> = { direct: [], proxy: [], bare: [] }
  for (let round = 0; round < rounds; round++) {
    for (const name of ['direct', 'proxy', 'bare'] as const) results[name].push(await task(sides[name]))
  }
  return results
}

async function measure(sides: Sides) {
  const host = 'host0.bench.test'
  const first = await inTurn(sides, ({ client, way, newName }) => client.first(way, newName()))
  const rate = await inTurn(sides, ({ client, way }) => client.rate(way, host, 32, Number(options.durationMs)))
  const latency = await inTurn(sides, async ({ client, way }) => median(await client.times(way, host, 2000)))
  const download = await inTurn(sides, ({ client, way }) => client.download(way, host, downloadBytes))
  const added = compare(latency.proxy, latency.direct, (proxy, direct) => proxy - direct)
  return {
    rate: {
      what: 'requests a second, 32 connections, small answers',
      ...spreads(rate),
      ofDirect: atLeast(0.2, compare(rate.proxy, rate.direct)),
      ofBare: atLeast(0.6, compare(rate.proxy, rate.bare)),
    },
    latency: {
      what: 'p50 of 2000 requests on one connection, milliseconds',
      ...spreads(latency),
      added: atMost(0.4, added),
    },
    download: {
      what: `megabytes a second, one connection, ${options.downloadMB} MB`,
      ...spreads(download),
      ofDirect: atLeast(0.4, compare(download.proxy, download.direct)),
    },
    first: { what: 'first request to a new host, name and handshakes included, milliseconds', ...spreads(first) },
  }
}

async function measureIdle(count: number) {
  const child = startChild<SlotsCommands>('egress-slots.ts', ['idleCostKB'], {
    execArgv: ['--expose-gc', '--disable-warning=ExperimentalWarning'],
  })
  const cost = await child.idleCostKB(count)
  await child.close()
  return {
    what: `(PSS with ${count} idle slots - with none) / ${count}, KB`,
    worker: hundredth(cost.worker),
    egress: hundredth(cost.egress),
    both: atMost(1024, spread([cost.worker + cost.egress])),
  }
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

const spreads = ({ direct, proxy, bare }: Record<keyof Sides, number[]>) => ({
  direct: spread(direct),
  proxy: spread(proxy),
  bare: spread(bare),
})

/** Round by round: what was measured next to each other is compared. */
function compare(values: number[], others: number[], by = (value: number, other: number) => value / other): Spread {
  return spread(values.map((value, round) => by(value, others[round] ?? Number.NaN)))
}

const atLeast = (target: number, of: Spread) => ({ ...of, target, met: of.median >= target ? 'met' : 'not met' })
const atMost = (target: number, of: Spread) => ({ ...of, target, met: of.median <= target ? 'met' : 'not met' })

try {
  const idle = await measureIdle(Number(options.slots))
  const sides = await openSides()
  const { rate, latency, download, first } = await measure(sides)
  const load = loadavg().map(hundredth)
  console.log(JSON.stringify({ ...circumstances(), loadAverage: load, rate, latency, download, first, idle }, null, 2))
} finally {
  for (const close of closers.reverse()) await close()
}
