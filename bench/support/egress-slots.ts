import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { type EgressOptions, openEgress } from '../../packages/worker/src/egress/index.ts'
import type { NetworkNamespaces, Outlet } from '../../packages/worker/src/sandbox/outlet.ts'
import { createProcessDriver } from '../../packages/worker/src/sandbox/process.ts'
import { guestBinary, slotHelperBinary } from '../../packages/worker/src/sandbox/testing/build-program.ts'
import { answerParent } from './children.ts'

/* What of a worker makes slots and their ways out, for bench/egress.ts. */

export interface Slots {
  /** Their networks, and what leads out of each */
  made: { network: NetworkNamespaces; outlet: Outlet }[]
  egressPid: number
  close(): Promise<void>
}

type Settings = Pick<EgressOptions, 'resolve' | 'extraCa' | 'measure'>

/** An egress process, and so many slots that wait for a session; `before` them is called when there are none yet. */
export async function openSlots(count: number, settings: Settings = {}, before?: (egressPid: number) => Promise<void>) {
  const dataDir = await mkdtemp(join(tmpdir(), 'paws-bench-'))
  const [guestAgent, slotHelper] = await Promise.all([guestBinary(), slotHelperBinary()])
  const log = pino({ level: 'warn' })
  const egress = await openEgress({ ...settings, slotHelper, log })
  const egressPid = egress.pid ?? 0
  await before?.(egressPid)
  const made: Slots['made'] = []
  const outlets = {
    async open(network: NetworkNamespaces) {
      const outlet = await egress.open(network)
      made.push({ network, outlet })
      return outlet
    },
  }
  const usual = { dataDir, guestAgent, slotHelper, diskMB: 64, log, outlets }
  const driver = await createProcessDriver({ ...usual, instance: `bench-${process.pid}`, slots: count })
  const close = async () => {
    await driver.close()
    await egress.close()
    await rm(dataDir, { recursive: true, force: true })
  }
  return { made, egressPid, close } satisfies Slots
}

export interface SlotsCommands {
  /** Kilobytes that one idle slot costs this process and the egress process */
  idleCostKB(count: number): { worker: number; egress: number }
}

if (process.send) {
  answerParent<SlotsCommands>({
    async idleCostKB(count) {
      let before = { worker: 0, egress: 0 }
      const slots = await openSlots(count, {}, async (pid) => {
        before = await settledPss(pid)
      })
      const after = await settledPss(slots.egressPid)
      await slots.close()
      return { worker: (after.worker - before.worker) / count, egress: (after.egress - before.egress) / count }
    },
  })
}

async function settledPss(egressPid: number) {
  await sleep(2000)
  globalThis.gc?.()
  const [worker, egress] = await Promise.all([pssKB(process.pid), pssKB(egressPid)])
  return { worker, egress }
}

async function pssKB(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8')
  return Number(/^Pss:\s+(\d+) kB$/m.exec(text)?.[1])
}
