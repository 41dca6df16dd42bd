import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Reply } from './handler.ts'
import { writeEvents } from './sse.ts'

/** Writes what a handler answered; an upgrade is not written here. */
export async function writeReply(
  request: IncomingMessage,
  response: ServerResponse,
  reply: Exclude<Reply, { upgrade: unknown }>,
  signal: AbortSignal,
): Promise<void> {
  const headOnly = request.method === 'HEAD'
  if ('json' in reply) {
    const body = JSON.stringify(reply.json)
    response.writeHead(reply.status, {
      ...reply.headers,
      'Content-Type': 'application/json',
      'Content-Length': Buffer.byteLength(body),
    })
    response.end(body)
  } else if ('empty' in reply) {
    response.writeHead(reply.status)
    response.end()
  } else if ('events' in reply) {
    if (headOnly) return endHead(response, reply.status, { 'Content-Type': 'text/event-stream; charset=utf-8' })
    await writeEvents(response, reply.status, reply.events, signal)
  } else {
    await writeBytes(response, reply, headOnly)
  }
}

async function writeBytes(
  response: ServerResponse,
  { status, bytes, contentType, length }: Extract<Reply, { bytes: unknown }>,
  headOnly: boolean,
): Promise<void> {
  const known = bytes instanceof Readable ? length : Buffer.byteLength(bytes)
  const headers = {
    'Content-Type': contentType,
    // Bytes of a sandbox must never be taken for a page of ours.
    'X-Content-Type-Options': 'nosniff',
    ...(known !== undefined && { 'Content-Length': known }),
  }
  if (headOnly) {
    if (bytes instanceof Readable) bytes.destroy()
    return endHead(response, status, headers)
  }
  response.writeHead(status, headers)
  if (bytes instanceof Readable) await pipeline(bytes, response)
  else response.end(bytes)
}

function endHead(response: ServerResponse, status: number, headers: Record<string, string | number>): void {
  response.writeHead(status, headers)
  response.end()
}
