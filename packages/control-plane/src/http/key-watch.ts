import type { Logger } from 'pino'
import type { Keys } from '../organizations/index.ts'

/** How soon it ends what a key has opened, once the key has ended */
const everyMs = 1000

/** Ends streams, terminals and transfers with the key that opened them, whichever control plane has revoked it. */
export interface KeyWatch {
  /** Aborts `request` once the key is revoked or expired; whoever makes it aborts it at its end anyway */
  add(keyId: string, request: AbortController): void
}

export function watchKeys(keys: Keys, log: Logger, stopping: AbortSignal): KeyWatch {
  const open = new Map<AbortController, string>()

  async function look() {
    if (open.size === 0) return
    const ended = await keys.ended([...new Set(open.values())])
    for (const [request, keyId] of open) if (ended.has(keyId)) request.abort()
  }
  const timer = setInterval(() => {
    look().catch((error: unknown) => log.warn({ err: error }, 'could not see which keys have ended'))
  }, everyMs).unref()
  stopping.addEventListener('abort', () => clearInterval(timer))

  return {
    add(keyId, request) {
      open.set(request, keyId)
      request.signal.addEventListener('abort', () => open.delete(request), { once: true })
    },
  }
}
