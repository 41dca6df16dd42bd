import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { pino } from 'pino'
import { expect, test } from 'vitest'
import type { Handle } from './listeners.ts'
import { startProcess } from './process.ts'

const configure = { type: 'configure' as const, resolve: [], nameServers: [], trusted: [], machineTrusted: [] }

async function listenOn(port: number) {
  const server = createServer().listen(port, '127.0.0.1')
  await once(server, 'listening')
  return { port: (server.address() as AddressInfo).port, server }
}

test('sockets that were on their way to a process that is killed are open nowhere', async () => {
  const egress = startProcess({ configure, onMessage: () => undefined, log: pino({ level: 'silent' }) })
  await egress.answer(({ type }) => type === 'ready')
  process.kill(egress.pid as number, 'SIGSTOP')
  const ports: number[] = []
  for (const what of ['http', 'https', 'dns-tcp'] as const) {
    const { port, server } = await listenOn(0)
    ports.push(port)
    const { _handle: handle } = server as unknown as { _handle: Handle }
    egress.send({ type: 'listen', slot: 'killed', what }, handle)
  }
  egress.kill()
  await egress.ended
  for (const port of ports) {
    const again = await listenOn(port)
    expect(again.port).toBe(port)
    again.server.close()
  }
})
