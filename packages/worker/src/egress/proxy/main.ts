/**
 * The egress process: what sandboxes dial ends here, and goes on from here as far as their rules say. It knows nothing but
 * what the worker tells it, keeps nothing, and ends with the worker.
 */
import type { FromEgress, ToEgress } from '../messages.ts'
import { createServers } from './servers.ts'
import { createSlot, type Slot } from './slot.ts'
import { createUpstream, type Upstream } from './upstream.ts'

if (!process.send) {
  throw new Error('The egress process is started by a worker, over whose channel it is told what to do')
}

const servers = createServers()
const slots = new Map<string, Slot>()
let upstream: Upstream | undefined
let measure = { scrub: true, audit: true }

/** Resolves when it is on its way; a worker that is gone is told nothing, and ends this process with the channel. */
const send = (message: FromEgress) =>
  new Promise<void>((resolve) => {
    if (!process.connected) return resolve()
    process.send?.(message, undefined, undefined, () => resolve())
  })

function slotOf(name: string): Slot {
  if (!upstream) throw new Error('The egress process was given a socket before it was configured')
  const known = slots.get(name)
  if (known) return known
  const slot = createSlot({ name, upstream, servers, measure, send })
  slots.set(name, slot)
  return slot
}

async function handle(message: ToEgress, socket: unknown): Promise<void> {
  switch (message.type) {
    case 'configure':
      upstream = createUpstream(message)
      measure = message.measure ?? measure
      return send({ type: 'ready' })
    case 'listen':
      slotOf(message.slot).listen(message.what, socket)
      return send({ type: 'listening', slot: message.slot, what: message.what })
    case 'allow':
      slotOf(message.slot).allow(message)
      return send({ type: 'allowed', slot: message.slot, request: message.request })
    case 'recorded':
      return slots.get(message.slot)?.recorded(message.count)
    case 'close':
      slots.get(message.slot)?.close()
      slots.delete(message.slot)
      return send({ type: 'closed', slot: message.slot })
  }
}

// Every sandbox's connections end with this process, so the operator is told why: in one line, by which our code is found.
// What an error says may quote what it was about, a secret for instance.
process.on('uncaughtException', (fault: Error & { code?: unknown }) => {
  const at =
    String(fault?.stack)
      .replace(String(fault?.message), '')
      .match(/^ +at .+$/gm) ?? []
  const where = at.slice(0, 8).map((line) => line.trim())
  process.stderr.write(`Ends by a fault: ${fault?.name} ${fault?.code ?? ''} ${where.join(' ')}\n`)
  process.exit(1)
})
process.on('message', (message: ToEgress, socket: unknown) => void handle(message, socket))
process.on('disconnect', () => process.exit(0))
// The worker ends this process; a terminal's Ctrl-C, which reaches every process, must not do it first.
process.on('SIGINT', () => undefined)
