import { pino } from 'pino'
import { openEgress } from '../../packages/worker/src/egress/index.ts'
import type { Driver } from '../../packages/worker/src/sandbox/driver.ts'
import { type IdMap, openIdMap } from '../../packages/worker/src/sandbox/id-map.ts'
import type { Outlets } from '../../packages/worker/src/sandbox/outlet.ts'
import { createProcessDriver } from '../../packages/worker/src/sandbox/process.ts'
import { guestBinary, slotHelperBinary } from '../../packages/worker/src/sandbox/testing/build-program.ts'

export interface OpenOptions {
  dataDir: string
  instance: string
  /** Sandboxes that can be started at once without waiting */
  ready: number
  /** Default: real ones of its own */
  outlets?: Outlets
}

/** What the suite must know of a kind of isolation. */
export interface DriverUnderTest {
  open(options: OpenOptions): Promise<Driver>
  /** The programs inside call the host's own kernel, so a filter must stand before it */
  sharesKernel: boolean
  /** Outside ids that everything of a sandbox runs under */
  ids(): Promise<Pick<IdMap, 'uid' | 'gid' | 'count'>>
}

/** Usual disk of the suite's sandboxes */
export const diskMB = 256

/** Every kind of isolation that there is. The whole suite runs against each. */
export const drivers: Record<string, DriverUnderTest> = {
  process: { open: openProcess, sharesKernel: true, ids: openIdMap },
}

async function openProcess({ dataDir, instance, ready, outlets }: OpenOptions): Promise<Driver> {
  const [guestAgent, slotHelper] = await Promise.all([guestBinary(), slotHelperBinary()])
  const log = pino({ level: 'warn' })
  const usual = { dataDir, guestAgent, slotHelper, instance, slots: ready, diskMB, log }
  if (outlets) return createProcessDriver({ ...usual, outlets })
  const egress = await openEgress({ slotHelper, log })
  const driver = await createProcessDriver({ ...usual, outlets: egress }).catch(async (error) => {
    await egress.close()
    throw error
  })
  const close = async () => {
    await driver.close()
    await egress.close()
  }
  return { ...driver, close }
}
