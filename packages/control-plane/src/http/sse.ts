import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import type { StreamEvent } from './handler.ts'

/** Proxies between close what is silent for long; a comment keeps it open. */
const pingMs = 15_000

/**
 * Writes events straight to Node's response: several times the streams a core of a web stream.
 * Waits for a slow reader, ends when the events do or the signal aborts.
 */
export async function writeEvents(
  response: ServerResponse,
  status: number,
  events: AsyncIterable<StreamEvent>,
  signal: AbortSignal,
): Promise<void> {
  response.writeHead(status, {
    'Content-Type': 'text/event-stream; charset=utf-8',
    'Cache-Control': 'no-store',
    // Nginx would hold events back.
    'X-Accel-Buffering': 'no',
  })
  response.flushHeaders()
  const ping = setInterval(() => {
    if (!response.writableNeedDrain) response.write(': ping\n\n')
  }, pingMs)
  const iterator = events[Symbol.asyncIterator]()
  let corked = false
  const flush = () => {
    if (corked) response.uncork()
    corked = false
  }
  try {
    while (!signal.aborted) {
      const next = await iterator.next()
      if (next.done || signal.aborted) break
      // Events that are there already leave in one segment.
      if (!corked) {
        corked = true
        response.cork()
        process.nextTick(flush)
      }
      if (!response.write(format(next.value))) await drained(response, signal)
    }
  } finally {
    clearInterval(ping)
    await iterator.return?.()
  }
  // Node would put what is held back behind the end.
  flush()
  response.end()
}

function format({ id, event, data }: StreamEvent): string {
  const text = `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`
  return id === undefined ? text : `id: ${id}\n${text}`
}

async function drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
  try {
    await once(response, 'drain', { signal })
  } catch (error) {
    // The reader left, or the server stops: the loop sees the signal and ends.
    if (!signal.aborted) throw error
  }
}
