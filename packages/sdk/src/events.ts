import { createParser, type EventSourceMessage } from 'eventsource-parser'
import { PawsError, unreachable } from './errors.ts'
import { backoff, pause } from './pause.ts'
import type { Transport } from './transport.ts'

/** One event of a stream. `data` is typed by whoever knows the stream. */
export interface ServerEvent {
  /** Absent in streams that can't be resumed */
  id: number | undefined
  event: string
  data: unknown
}

/** The events of a stream by name, as a union that `event` tells apart. */
export type EventOf<Events> = {
  [K in keyof Events & string]-?: { id: number | undefined; event: K; data: NonNullable<Events[K]> }
}[keyof Events & string]

export interface FollowOptions {
  /** Only events after the one with this id */
  after?: number
  signal?: AbortSignal
  /** How long a lost control plane is waited for before giving up; default two minutes */
  reconnectMs?: number
}

/** The server says something, if only `: ping`, every 15 s; three missed ones mean that the connection is dead. */
const silenceMs = 45_000

/** A connection that held this long was a good one. */
const steadyMs = 20_000

/**
 * Follows a stream to its end event, over as many connections as that takes, each event once.
 *
 * @throws PawsError when refused, or when nothing could be reached for `reconnectMs`
 */
export async function* followEvents(
  transport: Transport,
  path: string,
  isLast: (event: ServerEvent) => boolean,
  { after, signal, reconnectMs = 120_000 }: FollowOptions = {},
): AsyncGenerator<ServerEvent, void> {
  let seen = after ?? 0
  let lostAt: number | undefined
  let connectedAt: number | undefined
  for (let tries = 0; ; tries++) {
    try {
      const request = transport.request(path, { headers: resumeHeaders(seen), signal })
      // The first connection is tried as briefly as any request: a wrong URL should not take minutes to show.
      const response = await transport.send(request, connectedAt === undefined ? undefined : { retries: 0 })
      connectedAt = Date.now()
      for await (const event of readEvents(response, signal)) {
        lostAt = undefined
        tries = 0
        if (event.id !== undefined && event.id <= seen) continue
        seen = event.id ?? seen
        yield event
        if (isLast(event)) return
      }
      throw unreachable(transport.url, new Error('the stream ended early'))
    } catch (error) {
      if (connectedAt === undefined || !isLoss(error)) throw error
      // A connection that lasted was no failure, even if nothing happened while it did.
      if (Date.now() - connectedAt > steadyMs) lostAt = undefined
      lostAt ??= Date.now()
      if (Date.now() - lostAt > reconnectMs) throw error
      await pause(backoff(tries), signal)
    }
  }
}

/** Reads the events of one connection; it ends when the connection does. */
export async function* readEvents(response: Response, signal?: AbortSignal): AsyncGenerator<ServerEvent, void> {
  if (!response.body) throw unreachable(response.url, new Error('the answer has no body'))
  const reader = response.body.getReader()
  const decoder = new TextDecoder()
  const ready: EventSourceMessage[] = []
  const parser = createParser({ onEvent: (event) => ready.push(event) })
  try {
    for (;;) {
      const piece = await withinSilence(reader.read())
      // An event without its closing empty line is not whole: it comes again on the next connection.
      if (piece.done) return
      parser.feed(decoder.decode(piece.value, { stream: true }))
      for (let event = ready.shift(); event; event = ready.shift()) yield toServerEvent(event)
    }
  } catch (error) {
    if (signal?.aborted) throw signal.reason
    throw error instanceof PawsError ? error : unreachable(response.url, error)
  } finally {
    // The connection may be broken already, and then there is nothing to cancel.
    reader.cancel().catch(() => undefined)
  }
}

function resumeHeaders(seen: number): Record<string, string> {
  return { accept: 'text/event-stream', ...(seen > 0 && { 'last-event-id': String(seen) }) }
}

function toServerEvent({ id, event, data }: EventSourceMessage): ServerEvent {
  return { id: id ? Number(id) : undefined, event: event ?? 'message', data: JSON.parse(data) }
}

function isLoss(error: unknown): boolean {
  return error instanceof PawsError && (error.status === 0 || error.status === 429 || error.status >= 500)
}

async function withinSilence<T>(reading: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came for ${silenceMs / 1000} s`)), silenceMs)
  })
  try {
    return await Promise.race([reading, silence])
  } finally {
    clearTimeout(timer)
  }
}
