import { setTimeout as sleep } from 'node:timers/promises'
import type { EgressRecord } from '@paws/api'
import type { NetworkNamespaces, RecordSink } from '../sandbox/outlet.ts'
import { type Authority, createAuthority } from './authority.ts'
import { closeAll, openListeners } from './listeners.ts'
import type { SlotRules } from './messages.ts'
import type { EgressProcess } from './process.ts'

/** All that is known here of a slot: enough to hand it to another process. `proxy/slot.ts` is what that makes of it. */
export interface Slot {
  network: NetworkNamespaces
  authority: Promise<Authority>
  rules?: SlotRules
  sink?: RecordSink
  /** Addresses by name */
  pins: Map<string, string>
  /** Which process has its listeners */
  servedBy?: EgressProcess
  closed: boolean
  /** How often rules have been sent */
  requests: number
  /** Resolves when the records that came have been kept */
  kept: Promise<void>
}

/** How long the process may take to say the last records of a slot that closes. */
const farewellMs = 2_000

export function createSlot(network: NetworkNamespaces): Slot {
  const authority = createAuthority()
  // It is awaited later, if at all.
  authority.catch(() => undefined)
  return { network, authority, pins: new Map(), closed: false, requests: 0, kept: Promise.resolve() }
}

/** Has a process serve a slot as it is. */
export async function serveSlot(child: EgressProcess, slot: Slot, slotHelper: string): Promise<void> {
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

/** Tells a process what a slot may do, if anything. */
export async function sendRules(child: EgressProcess, slot: Slot): Promise<void> {
  const { network, pins } = slot
  const { certificate, key } = await slot.authority
  // A closed one has none, and the process has forgotten it.
  const { rules } = slot
  if (!rules) return
  const request = ++slot.requests
  const answer = child.answer((m) => m.type === 'allowed' && m.slot === network.name && m.request === request)
  child.send({
    ...{ type: 'allow', slot: network.name, request, rules, authority: { certificate, key } },
    pins: [...pins].map(([host, address]) => ({ name: host, address })),
  })
  await answer
}

/** Passes records on, one batch after the other, and has the process send more. */
export function keepRecords(slot: Slot, records: EgressRecord[], from: EgressProcess): void {
  slot.kept = slot.kept.then(async () => {
    // Until there are rules, nobody has asked for records.
    await slot.sink?.(records)
    from.send({ type: 'recorded', slot: slot.network.name, count: records.length })
  })
}

/** Lets out nothing more; resolves when the last records have come. */
export async function endSlot(slot: Slot): Promise<void> {
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
}
