import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { type Endpoint, type Endpoints, endpoints } from '@paws/api'
import { type Link, type LinkCall, openLink } from '../client.ts'

type BodyOf<Id extends LinkCall> = Endpoints[Id]['body'] extends { _zod: { output: infer O } } ? O : never
export type Answering = {
  [Id in LinkCall]?: (body: BodyOf<Id>, params: Record<string, string>) => unknown
}

/** An answer that is an error. */
export class Refused extends Error {
  readonly status: number
  readonly code: string
  constructor(status: number, code: string) {
    super(code)
    this.status = status
    this.code = code
  }
}

export interface Plane {
  link: Link
  /** May be replaced at any time; what is not answered hangs up */
  answering: Answering
  close(): Promise<void>
}

/**
 * The worker's side of the API alone, with answers of a test's own, so that it can fail in every way at any moment.
 * It is as strict as the real one: what breaks the contract is refused, and the test sees that.
 */
export async function startPlane(answering: Answering): Promise<Plane> {
  const server = http.createServer((request, response) => {
    answer(request, plane.answering).then(
      (body) => {
        response.writeHead(200, { 'content-type': 'application/json' })
        response.end(JSON.stringify(body))
      },
      (error: unknown) => {
        if (!(error instanceof Refused)) return request.socket.destroy()
        response.writeHead(error.status, { 'content-type': 'application/json' })
        response.end(JSON.stringify({ error: { code: error.code, message: error.message } }))
      },
    )
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const link = openLink({ url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`), credential: 'c' })
  const plane: Plane = {
    link,
    answering,
    async close() {
      await link.close()
      server.closeAllConnections()
      server.close()
    },
  }
  return plane
}

async function answer(request: http.IncomingMessage, answering: Answering): Promise<unknown> {
  const pieces: Buffer[] = []
  for await (const piece of request) pieces.push(piece as Buffer)
  for (const [id, serve] of Object.entries(answering)) {
    const endpoint: Endpoint = endpoints[id as LinkCall]
    const pattern = new RegExp(`^${endpoint.path.replace(/\{(\w+)\}/g, '(?<$1>[^/]+)')}$`)
    const match = pattern.exec(request.url ?? '')
    if (!match) continue
    if (!endpoint.body || 'kind' in endpoint.body) throw new Error(`${id} takes no JSON`)
    const body = endpoint.body.safeParse(JSON.parse(String(Buffer.concat(pieces))))
    if (!body.success) throw new Refused(400, `VALIDATION_ERROR ${body.error.message}`)
    return (serve as (body: unknown, params: unknown) => unknown)(body.data, match.groups ?? {})
  }
  throw new Error('Not answered: the connection is cut')
}
