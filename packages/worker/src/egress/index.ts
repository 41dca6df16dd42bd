import type { Logger } from 'pino'
import type { Outlet, Outlets } from '../sandbox/outlet.ts'
import { createAuthority } from './authority.ts'
import type { Configure, FromEgress } from './messages.ts'
import { openPresets } from './presets.ts'
import { EgressEnded, type EgressProcess } from './process.ts'
import { resolveRules } from './rules.ts'
import { createSlot, endSlot, keepRecords, type Slot, sendRules, serveSlot } from './slot.ts'
import { openSupervisor } from './supervisor.ts'
import { readTrust } from './trust.ts'

export interface EgressOptions {
  /** Path of the slot helper, which opens listeners */
  slotHelper: string
  /** `host:port` to `address:port`: dialled as it is, public or not */
  resolve?: [from: string, to: string][]
  /** `address:port` of name servers instead of the system's resolver */
  nameServers?: string[]
  /** Certificates, PEM, trusted for every host beside those that Node brings */
  extraCa?: string[]
  /** For measuring only */
  measure?: Configure['measure']
  log: Logger
}

export interface Egress extends Outlets {
  /** Of the process that serves now */
  readonly pid: number | undefined
  close(): Promise<void>
}

/** How many slots are handed to a new process at once: each takes a helper. */
const atOnce = 4

/**
 * Starts the egress process and keeps one running. When it dies, the next one gets new listeners in every live network
 * and all that the dead one had been told: only open connections break, and meanwhile nothing gets out.
 */
export async function openEgress(options: EgressOptions): Promise<Egress> {
  const { slotHelper, log, resolve = [], nameServers = [], extraCa = [], measure } = options
  const slots = new Map<string, Slot>()
  const presetOf = openPresets()
  const configure: Configure = { type: 'configure', resolve, nameServers, ...readTrust(extraCa), measure }
  const supervisor = await openSupervisor({ configure, onMessage, handOver, log })

  async function handOver(to: EgressProcess) {
    const waiting = [...slots.values()]
    const failed = (error: unknown) => {
      if (!(error instanceof EgressEnded)) log.error({ err: error }, 'A sandbox has no way out any more')
    }
    const some = async () => {
      for (let slot = waiting.pop(); slot; slot = waiting.pop()) await serveSlot(to, slot, slotHelper).catch(failed)
    }
    await Promise.all(Array.from({ length: atOnce }, some))
  }

  function onMessage(message: FromEgress, from: EgressProcess) {
    if (message.type === 'ready') return
    const slot = slots.get(message.slot)
    if (message.type === 'pinned') slot?.pins.set(message.name, message.address)
    if (message.type === 'records' && slot) keepRecords(slot, message.records, from)
  }

  function outletOf(slot: Slot): Outlet {
    let closed: Promise<void> | undefined
    return {
      async allow(rules, records) {
        const resolved = await resolveRules(rules, presetOf)
        const { freshUntil } = await slot.authority
        if (Date.now() > freshUntil) slot.authority = createAuthority()
        if (slot.closed) throw new Error('Nothing can leave this sandbox any more: it is ending.')
        slot.rules = resolved.rules
        slot.sink = records
        await supervisor.ask((child) => sendRules(child, slot))
        const { certificate } = await slot.authority
        return { certificate, env: resolved.env }
      },
      close() {
        closed ??= end(slot)
        return closed
      },
    }
  }

  async function end(slot: Slot) {
    await endSlot(slot)
    slots.delete(slot.network.name)
    await slot.kept
  }

  return {
    get pid() {
      return supervisor.running.pid
    },
    async open(network) {
      const slot = createSlot(network)
      await supervisor.ask(async (child) => {
        await serveSlot(child, slot, slotHelper)
        if (!child.dead) slots.set(network.name, slot)
      })
      await slot.authority
      return outletOf(slot)
    },
    close: supervisor.close,
  }
}
