import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'
import { WebSocketServer } from 'ws'

export interface Seen {
  method: string
  path: string
  headers: IncomingMessage['headers']
  body: string
}

type Answer = (response: ServerResponse, seen: Seen) => void

/** A real HTTP server that gives these answers, in this order, the last one again and again; and what it was asked. */
export async function serve(...answers: Answer[]) {
  const seen: Seen[] = []
  const server = createServer(async (request, response) => {
    const pieces: Buffer[] = []
    for await (const piece of request) pieces.push(piece as Buffer)
    const one = {
      method: request.method ?? '',
      path: request.url ?? '',
      headers: request.headers,
      body: Buffer.concat(pieces).toString(),
    }
    seen.push(one)
    const answer = answers[Math.min(seen.length, answers.length) - 1]
    if (answer) answer(response, one)
    else response.destroy()
  })
  const sockets = new WebSocketServer({ server })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    for (const socket of sockets.clients) socket.terminate()
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen, sockets }
}

export const json =
  (status: number, body: unknown, headers: Record<string, string> = {}): Answer =>
  (response) =>
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))

export const refusal = (status: number, code: string, headers?: Record<string, string>) =>
  json(status, { error: { code, message: `It is ${code}.`, requestId: 'req_1' } }, headers)

/** Breaks the connection without an answer. */
export const broken: Answer = (response) => response.destroy()

/** Writes this much of a stream of events, then ends the connection, or cuts it. */
export const stream =
  (text: string, { cut = false } = {}): Answer =>
  (response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(text, () => {
      if (cut) response.destroy()
      else response.end()
    })
  }
