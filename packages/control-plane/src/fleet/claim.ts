import { setTimeout as sleep } from 'node:timers/promises'
import type { BuildClaim, SessionClaim } from '@paws/api'
import type { z } from 'zod'
import type { Events } from '../events/index.ts'
import { claimBuilds, workChannel } from '../snapshots/index.ts'
import { claimSessions } from './claim-sessions.ts'
import { type OpeningServices, openTaken } from './open-taken.ts'

export type Claim = z.input<typeof SessionClaim> | z.input<typeof BuildClaim>

/** Wake-ups aren't lost, but a look now and then costs little and outlives any mistake. */
const lookAgainMs = 5000

export interface ClaimOptions {
  workerId: string
  /** Free slots of the worker */
  sessions: number
  builds: number
  waitMs: number
  leaseMs: number
  /** Aborts when the worker has hung up: whatever were claimed then would be lost */
  signal: AbortSignal
}

/** Waits for work for a worker; empty when the time has passed without. */
export async function claim(services: OpeningServices & { events: Events }, options: ClaimOptions): Promise<Claim[]> {
  const { events } = services
  const deadline = Date.now() + options.waitMs
  // Subscribed before the first look: what is committed in between wakes the next wait.
  const work = events.subscribe(workChannel)
  try {
    while (!options.signal.aborted) {
      const claims = await take(services, options)
      const left = deadline - Date.now()
      if (claims.length > 0 || left <= 0) return claims
      await work.wait(Math.min(left, lookAgainMs), options.signal)
    }
    return []
  } finally {
    work.close()
  }
}

async function take(services: OpeningServices, options: ClaimOptions): Promise<Claim[]> {
  const { db } = services
  const { workerId, leaseMs } = options
  const claims: Claim[] = []
  if (options.builds > 0) claims.push(...(await claimBuilds(db, { workerId, limit: options.builds, leaseMs })))
  let free = options.sessions
  while (free > 0) {
    const { claimed, passedOver } = await claimSessions(db, { workerId, limit: free, leaseMs })
    claims.push(...(await openTaken(services, options.workerId, claimed)))
    free -= claimed.length
    // What was locked by others, all of that was looked at, says nothing about what stands behind it.
    if (claims.length > 0 || passedOver === 0) break
    await sleep(2)
  }
  return claims
}
