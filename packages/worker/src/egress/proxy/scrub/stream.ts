import { allow, openEffort } from './effort.ts'
import type { Matcher } from './matcher.ts'
import { SHORTEST } from './parts.ts'

/** Takes secrets out of bytes as they come. */
export interface ByteScrubber {
  /** @returns what can be told already */
  push(chunk: Buffer): Buffer
  /** The end: what is held back is no secret */
  end(): Buffer
  /**
   * Gives out what is held back although it may be the beginning of a secret, or masks it when that is long; whatever
   * of the secret comes later is still found.
   */
  release(): Buffer
  readonly holds: boolean
}

export const MASK = Buffer.from('***')
const NOTHING = Buffer.alloc(0)

export function openByteScrubber(matcher: Matcher): ByteScrubber {
  const effort = openEffort()
  let held: Buffer = NOTHING
  /** How much of `held` has been given out or masked already, and whether the last of it was masked */
  let done = 0
  let masked = false

  function take(chunk: Buffer, last: boolean): Buffer {
    const bytes = held.length > 0 ? Buffer.concat([held, chunk]) : chunk
    allow(effort, chunk.length)
    const { found, open } = matcher.search(bytes, last, effort)
    if (found.length === 0 && open === bytes.length && done === 0) {
      held = NOTHING
      return bytes
    }
    const pieces: Buffer[] = []
    let at = done
    for (const [from, to] of found) {
      if (to <= at) continue
      if (from > at) pieces.push(bytes.subarray(at, from))
      if (from >= at || !masked) pieces.push(MASK)
      at = to
      masked = true
    }
    if (open > at) {
      pieces.push(bytes.subarray(at, open))
      at = open
      masked = false
    }
    held = open < bytes.length ? Buffer.from(bytes.subarray(open)) : NOTHING
    done = held.length > 0 ? at - open : 0
    return pieces.length === 1 ? (pieces[0] ?? NOTHING) : Buffer.concat(pieces)
  }

  return {
    push: (chunk) => take(chunk, false),
    end: () => take(NOTHING, true),
    release() {
      const rest = held.subarray(done)
      if (rest.length === 0) return NOTHING
      done = held.length
      const long = held.length >= SHORTEST
      const mark = long && !masked
      masked = long
      if (long) return mark ? MASK : NOTHING
      return rest
    },
    get holds() {
      return held.length > done
    },
  }
}
