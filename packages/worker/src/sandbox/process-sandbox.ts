import { setTimeout as sleep } from 'node:timers/promises'
import type { Limits } from './cgroup.ts'
import type { Sandbox } from './driver.ts'
import { withEnvironment } from './environment.ts'
import { connectGuest } from './guest/agent.ts'
import type { Slot } from './slots.ts'

/** How long the guest agent may take beyond its grace to say good-bye */
const FAREWELL_MS = 3000

/** A sandbox, and when all that it held has been given back. */
export interface Running {
  sandbox: Sandbox
  /** Rejects when something could not be given back */
  released: Promise<void>
}

/**
 * Gives the slot its limits and its order, and waits until the guest agent answers. If it doesn't, everything is given back and the
 * error tells what bubblewrap or the slot helper said.
 */
export async function startSandbox(slot: Slot, limits: Limits, order: string[]): Promise<Running> {
  const agent = connectGuest(slot.stream)
  let asked = false
  const gone = slot.ended.then(async (said) => ({ reason: asked ? 'stopped' : await reasonOf(slot, said) }))
  const released = gone.then(() => slot.release())
  // Whoever calls stop() hears of a failure; nobody may.
  released.catch(() => undefined)
  // The agent may hang up, or be hung up on, while processes live on.
  void agent.gone.then(() => slot.kill())
  try {
    await slot.cgroup.limit(limits)
    slot.order(order)
    await agent.ping()
  } catch (cause) {
    slot.kill()
    const { reason } = await gone
    await released
    throw new Error(`The sandbox did not start: ${reason}`, { cause })
  }
  const stop = async (graceMs: number) => {
    asked = true
    await Promise.race([agent.shutdown({ graceMs }), sleep(graceMs + FAREWELL_MS, undefined, { ref: false })])
    slot.kill()
    await released
  }
  let stopping: Promise<void> | undefined
  const sandbox: Sandbox = {
    isolation: 'process',
    outlet: slot.outlet,
    exec: (command) => agent.exec(withEnvironment(command)),
    put: agent.put,
    get: agent.get,
    connect: agent.connect,
    gone,
    stop: ({ graceMs = 0 } = {}) => {
      stopping ??= stop(graceMs)
      return stopping
    },
  }
  return { sandbox, released }
}

async function reasonOf(slot: Slot, said: string): Promise<string> {
  if ((await slot.cgroup.oomKills()) > 0) return 'out of memory'
  return `its process 1 ended (${said})`
}
