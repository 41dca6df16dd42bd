import { once } from 'node:events'
import { connect } from 'node:net'
import { type Handlers, handlers, mountApi, startServer } from '../../packages/control-plane/src/http/index.ts'
import type { Services } from '../../packages/control-plane/src/services.ts'
import { ignoreOrigin } from './recorder.ts'

/** The contract's loop with some handlers of a test's own, on a port of its own. */
export async function serveHandlers(services: Services, own: Partial<Handlers>, drainMs = 2000) {
  const stopping = new AbortController()
  const app = mountApi(services, { handlers: { ...handlers, ...own }, stopping: stopping.signal })
  const stop = () => stopping.abort()
  const server = await startServer({ app, host: '127.0.0.1', port: 0, log: services.log, stop, drainMs })
  const url = `http://127.0.0.1:${server.port}`
  ignoreOrigin(url)
  return { ...server, url }
}

/** Sends bytes as they are and answers all that came until the server closed. */
export async function sendRaw(port: number, ...pieces: (string | Buffer)[]): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1' })
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  for (const piece of pieces) socket.write(piece)
  await once(socket, 'close')
  return Buffer.concat(chunks).toString()
}
