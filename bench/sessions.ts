import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { createClient, type PawsClient } from '@paws/sdk'
import { startInstallation } from '../test/support/up.ts'
import { handChain } from './hand-chain.ts'
import { circumstances, figures, hundredth, rateOf, tenth } from './support/figures.ts'

/*
 * `echo hello` as a session, from submitting it to the first byte of its output, beside the same start chain done by
 * hand: in turn, in one run, on the same image. Then as many a second as go, eight at a time, again on both sides.
 */

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '60' },
    total: { type: 'string', default: '200' },
    // A folder that stays, so that the snapshot need not be built each time
    data: { type: 'string' },
  },
})
const rounds = Number(options.rounds)
const total = Number(options.total)
const parallel = 8
const body = { snapshot: 'minimal', workload: { type: 'script', script: 'echo hello' } } as const

const settings = { PAWS_MAX_SESSIONS: `${parallel}`, PAWS_SLOTS: `${parallel}` }
const installation = await startInstallation({ env: settings, folder: options.data })
try {
  const paws = createClient(installation)
  const [worker] = await paws.fleet.workers()
  const chain = await chainOf(join(installation.dataDir, 'worker'))
  const latency = await measureLatency(paws, chain)
  const rate = await measureRate(paws, chain)
  console.log(JSON.stringify({ ...circumstances(), driver: worker?.isolation, latency, rate }, null, 2))
} finally {
  await installation.close()
}

interface Phases {
  acceptedMs: number
  runningMs: number
  firstByteMs: number
  doneMs: number
}

/** One session, and when each of its events came, from submitting it. */
async function session(paws: PawsClient): Promise<Phases> {
  const began = performance.now()
  const since = () => performance.now() - began
  const { sessionId } = await paws.sessions.create(body)
  const phases: Phases = { acceptedMs: since(), runningMs: 0, firstByteMs: 0, doneMs: 0 }
  for await (const { event, data } of paws.sessions.events(sessionId)) {
    if (event === 'status' && data.status === 'running') phases.runningMs = since()
    if (event === 'stdout') phases.firstByteMs ||= since()
    if (event === 'done' && data.status !== 'completed') throw new Error(`Session ${sessionId} is ${data.status}`)
  }
  phases.doneMs = since()
  return phases
}

async function measureLatency(paws: PawsClient, chain: () => ReturnType<typeof handChain>) {
  const ours: Phases[] = []
  const hand: number[] = []
  for (let round = -5; round < rounds; round++) {
    const measured = await session(paws)
    // The next slot is made in the background; both sides start with theirs ready.
    await new Promise((resolve) => setTimeout(resolve, 150))
    const { firstByteMs } = await chain()
    if (round < 0) continue
    ours.push(measured)
    hand.push(firstByteMs)
  }
  const of = (phase: keyof Phases) => figures(ours.map((one) => one[phase]))
  const byHand = figures(hand)
  const p50 = { accepted: of('acceptedMs').p50, running: of('runningMs').p50, firstByte: of('firstByteMs').p50 }
  return {
    what: 'submit to first output byte, milliseconds, slots ready, one at a time',
    paws: of('firstByteMs'),
    hand: byHand,
    ratioP50: hundredth(p50.firstByte / byHand.p50),
    targetRatioP50: 2.0,
    boundBy: {
      submitMs: p50.accepted,
      queueAndClaimMs: tenth(p50.running - p50.accepted),
      startAndFirstOutputMs: tenth(p50.firstByte - p50.running),
      finishMs: tenth(of('doneMs').p50 - p50.firstByte),
    },
  }
}

async function measureRate(paws: PawsClient, chain: () => ReturnType<typeof handChain>) {
  // Both sides make their slots while they run.
  const byHand = [await rateOf(total / 2, parallel, chain)]
  const ours = await rateOf(total, parallel, () => session(paws))
  byHand.push(await rateOf(total / 2, parallel, chain))
  const hand = byHand.reduce((sum, one) => sum + one, 0) / byHand.length
  return {
    what: `sessions a second, ${total} of them, ${parallel} at a time, slots made on the way`,
    paws: tenth(ours),
    hand: tenth(hand),
    handSpread: byHand.map(tenth),
    ratio: hundredth(ours / hand),
    targetRatio: 0.6,
    boundBy: 'processor: control plane, database, worker and sandboxes share the cores with this client',
  }
}

/** The chain by hand, on the image and with the filter that the worker uses. */
async function chainOf(workerDir: string) {
  const snapshots = join(workerDir, 'snapshots')
  const [digest] = (await readdir(snapshots)).filter((name) => /^[0-9a-f]{64}$/.test(name))
  if (!digest) throw new Error(`No snapshot lies unpacked in ${snapshots}`)
  const imageDir = join(snapshots, digest, 'rootfs')
  return () => handChain({ imageDir, seccomp: join(workerDir, 'seccomp.bpf') })
}
