import type { Socket } from 'node:net'
import type { WebSocket } from 'ws'

/** Of one sandbox: messages of all its WebSockets whose end has not come yet, or that a slow side has not taken. */
const MOST_HELD_BYTES = 64 * 1024 * 1024
/** Who has no more than this is not broken off for what the others have. */
const FEW_BYTES = 64 * 1024

/** What one conversation holds, as part of what all of the sandbox's hold. */
export interface Holding {
  change(bytes: number): void
  /** Counts what comes until it is a whole message; `tooMuch` is called when that is more than may be held */
  watch(socket: Socket, webSocket: WebSocket, tooMuch: () => void): void
  end(): void
}

export function openHolding(all: { bytes: number }): Holding {
  let own = 0
  let isOver = false
  const change = (bytes: number) => {
    if (isOver) return
    own += bytes
    all.bytes += bytes
  }
  return {
    change,
    watch: (socket, webSocket, tooMuch) => {
      let unfinished = 0
      const come = (bytes: number) => {
        unfinished += bytes
        change(bytes)
      }
      // Before ws, which may find a whole message in it at once.
      socket.prependListener('data', (chunk: Buffer) => {
        come(chunk.length)
        if (all.bytes > MOST_HELD_BYTES && unfinished > FEW_BYTES) tooMuch()
      })
      webSocket.on('message', () => come(-unfinished))
      // These may come in the midst of a message.
      const aside = (data: Buffer) => come(-Math.min(unfinished, data.length + 2))
      webSocket.on('ping', aside).on('pong', aside)
    },
    end: () => {
      change(-own)
      isOver = true
    },
  }
}
