import { setTimeout as sleep } from 'node:timers/promises'
import type { EgressRecord } from '@paws/api'
import type { Logger } from 'pino'
import type { NetworkNamespaces, Outlet, Outlets, RecordSink } from '../sandbox/outlet.ts'
import { type Authority, createAuthority } from './authority.ts'
import { closeAll, openListeners } from './listeners.ts'
import type { Configure, FromEgress, SlotRules } from './messages.ts'
import { openPresets } from './presets.ts'
import { EgressEnded, type EgressProcess } from './process.ts'
import { resolveRules } from './rules.ts'
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
/** How long the process may take to say the last records of a slot that closes. */
const farewellMs = 2_000

/** All that is known of a slot; enough to hand it to another process. */
interface Slot {
  network: NetworkNamespaces
  authority: Promise<Authority>
  rules?: SlotRules
  sink?: RecordSink
  /** Addresses by name */
  pins: Map<string, string>
  /** Which process has its listeners */
  servedBy?: EgressProcess
  closed: boolean
  /** Resolves when the records that came have been kept */
  kept: Promise<void>
}

/**
 * Starts the egress process and keeps one running. When it dies, the next one gets new listeners in every live network
 * and all that the dead one had been told: only open connections break, and meanwhile nothing gets out.
 */
export async function openEgress(options: EgressOptions): Promise<Egress> {
  const { slotHelper, log, resolve = [], nameServers = [], extraCa = [], measure } = options
  const slots = new Map<string, Slot>()
  const presetOf = openPresets()
  let requests = 0
  const configure: Configure = { type: 'configure', resolve, nameServers, ...readTrust(extraCa), measure }
  const supervisor = await openSupervisor({ configure, onMessage, handOver, log })

  async function handOver(to: EgressProcess) {
    const waiting = [...slots.values()]
    const failed = (error: unknown) => {
      if (!(error instanceof EgressEnded)) log.error({ err: error }, 'A sandbox has no way out any more')
    }
    const some = async () => {
      for (let slot = waiting.pop(); slot; slot = waiting.pop()) await serve(to, slot).catch(failed)
    }
    await Promise.all(Array.from({ length: atOnce }, some))
  }

  /** Has a process serve a slot as it is. */
  async function serve(child: EgressProcess, slot: Slot) {
    const { name } = slot.network
    // The descriptors of a closed one may name something else by now.
    if (slot.closed) return
    const listeners = await openListeners(slotHelper, slot.network)
    if (child.dead || slot.closed) {
      closeAll(listeners)
      return
    }
    slot.servedBy = child
    const listening = listeners.map(({ what, handle }) => {
      const answer = child.answer((m) => m.type === 'listening' && m.slot === name && m.what === what)
      child.send({ type: 'listen', slot: name, what }, handle)
      return answer
    })
    await Promise.all(listening)
    await sendRules(child, slot)
  }

  async function sendRules(child: EgressProcess, slot: Slot) {
    const { network, pins } = slot
    const { certificate, key } = await slot.authority
    // A closed one has none, and the process has forgotten it.
    const { rules } = slot
    if (!rules) return
    const request = ++requests
    const answer = child.answer((m) => m.type === 'allowed' && m.slot === network.name && m.request === request)
    child.send({
      ...{ type: 'allow', slot: network.name, request, rules, authority: { certificate, key } },
      pins: [...pins].map(([host, address]) => ({ name: host, address })),
    })
    await answer
  }

  function onMessage(message: FromEgress, from: EgressProcess) {
    if (message.type === 'ready') return
    const slot = slots.get(message.slot)
    if (message.type === 'pinned') slot?.pins.set(message.name, message.address)
    if (message.type === 'records' && slot) keep(slot, message.records, from)
  }

  function keep(slot: Slot, records: EgressRecord[], from: EgressProcess) {
    slot.kept = slot.kept.then(async () => {
      // Until there are rules, nobody has asked for records.
      await slot.sink?.(records)
      from.send({ type: 'recorded', slot: slot.network.name, count: records.length })
    })
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
        closed ??= endSlot(slot)
        return closed
      },
    }
  }

  async function endSlot(slot: Slot) {
    const { name } = slot.network
    slot.closed = true
    slot.rules = undefined
    const child = slot.servedBy
    if (child && !child.dead) {
      const answer = child.answer((m) => m.type === 'closed' && m.slot === name)
      child.send({ type: 'close', slot: name })
      // One that dies has nothing more to say.
      await Promise.race([answer.catch(() => undefined), sleep(farewellMs, undefined, { ref: false })])
    }
    slots.delete(name)
    await slot.kept
  }

  return {
    get pid() {
      return supervisor.running.pid
    },
    async open(network) {
      const authority = createAuthority()
      // Awaited below, unless the listeners can't be opened.
      authority.catch(() => undefined)
      const slot: Slot = { network, authority, pins: new Map(), closed: false, kept: Promise.resolve() }
      await supervisor.ask(async (child) => {
        await serve(child, slot)
        if (!child.dead) slots.set(network.name, slot)
      })
      await authority
      return outletOf(slot)
    },
    close: supervisor.close,
  }
}
