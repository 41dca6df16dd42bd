import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { pino } from 'pino'
import { openEgress } from './egress/index.ts'
import { createProcessDriver } from './sandbox/process.ts'

/**
 * Starts and stops one sandbox here and prints, as a line of JSON, what came of it:
 * `{isolation, limitations, startMs}`, or `{error}`. Needs no control plane and no snapshot, and leaves nothing behind.
 */
const { values } = parseArgs({
  options: { 'guest-agent': { type: 'string' }, 'slot-helper': { type: 'string' }, folder: { type: 'string' } },
})
const { 'guest-agent': guestAgent, 'slot-helper': slotHelper, folder } = values
if (!guestAgent || !slotHelper || !folder) {
  throw new Error('usage: probe.ts --guest-agent FILE --slot-helper FILE --folder DIR')
}

const dataDir = await mkdtemp(join(folder, '.paws-probe-'))
try {
  say(await probe())
} catch (error) {
  say({ error: error instanceof Error ? error.message : String(error) })
} finally {
  await rm(dataDir, { recursive: true, force: true })
}

function say(result: object) {
  process.stdout.write(`${JSON.stringify(result)}\n`)
}

async function probe() {
  const imageDir = join(dataDir, 'image')
  // What every sandbox is given needs a place to be given to; the agent is all that runs in there.
  for (const name of ['proc', 'dev', 'tmp', 'run', 'etc', 'workspace', 'output']) {
    await mkdir(join(imageDir, name), { recursive: true, mode: 0o755 })
  }
  const instance = `probe-${process.pid}`
  const log = pino({ level: 'silent' })
  const programs = { guestAgent: guestAgent as string, slotHelper: slotHelper as string }
  await using opened = new AsyncDisposableStack()
  const outlets = opened.adopt(await openEgress({ ...programs, log }), (egress) => egress.close())
  const driver = await createProcessDriver({ ...programs, dataDir, instance, slots: 0, diskMB: 64, outlets, log })
  try {
    const began = performance.now()
    const sandbox = await driver.start({
      id: instance,
      imageDir,
      vcpus: 1,
      memoryMB: 256,
      diskMB: 64,
      hostname: 'probe',
    })
    const startMs = Math.round(performance.now() - began)
    await sandbox.stop()
    return { isolation: driver.isolation, limitations: driver.limitations, startMs }
  } finally {
    await driver.close()
  }
}
