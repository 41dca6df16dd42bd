import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import net, { type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { pino } from 'pino'
import { afterEach, beforeAll, describe, expect, test } from 'vitest'
import { openTunnels, type Tunnels } from '../../packages/control-plane/src/fleet/tunnels.ts'
import { openTunnel, type TunnelServer } from '../../packages/worker/src/link/tunnel.ts'

const log = pino({ level: process.env.TEST_LOG ?? 'silent' })
const folder = mkdtempSync(join(tmpdir(), 'paws-tunnel-'))
const closers: (() => unknown)[] = []
let certificate: { key: Buffer; cert: Buffer }

beforeAll(() => {
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1']
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  execFileSync('openssl', ['req', '-x509', ...curve, ...subject, '-keyout', key, '-out', cert], { stdio: 'ignore' })
  certificate = { key: readFileSync(key), cert: readFileSync(cert) }
  rmSync(folder, { recursive: true })
  // As an operator would by NODE_EXTRA_CA_CERTS: the worker has no setting that weakens the check.
  setDefaultCACertificates([...getCACertificates('default'), String(certificate.cert)])
})

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

async function controlPlane(tls: boolean, tunnels: Tunnels) {
  const sockets = new Set<Socket>()
  const server = tls ? https.createServer(certificate) : http.createServer()
  server.on('connection', (socket) => sockets.add(socket))
  server.on('upgrade', (request, socket, head) => tunnels.accept('w1', request, socket, head))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  closers.push(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  closers.push(() => tunnels.close())
  const { port } = server.address() as AddressInfo
  return { port, sockets, url: new URL(`${tls ? 'https' : 'http'}://127.0.0.1:${port}`) }
}

async function bytesOf(stream: Readable): Promise<number> {
  let bytes = 0
  for await (const chunk of stream) bytes += (chunk as Buffer).length
  return bytes
}

const large = 8 * 1024 * 1024
const answers: TunnelServer = (stream, headers) => {
  if (headers[':path'] === '/large') {
    stream.respond({ ':status': 200 })
    stream.end(Buffer.alloc(large))
  } else if (headers[':path'] === '/never') {
    stream.resume()
  } else {
    stream.respond({ ':status': 200, 'x-path': headers[':path'] })
    stream.pipe(stream)
  }
}

describe.each([{ tls: false }, { tls: true }])('over TLS: $tls', ({ tls }) => {
  async function pair(options: { pingMs?: number } = {}) {
    const tunnels = openTunnels({ log, ...options })
    const plane = await controlPlane(tls, tunnels)
    const worker = openTunnel({ url: plane.url, credential: 'c', serve: answers, log, ...options })
    closers.push(() => worker.close())
    await worker.opened
    return { tunnels, ...plane }
  }

  test('a request goes to the worker and its answer comes back, both streamed', async () => {
    const { tunnels } = await pair()
    const { status, headers, stream } = await tunnels.request('w1', { method: 'POST', path: '/echo?a=1' })
    expect(status).toBe(200)
    expect(headers['x-path']).toBe('/echo?a=1')
    stream.write('one')
    expect(String((await once(stream, 'data'))[0])).toBe('one')
    stream.end('two')
    expect(String((await once(stream, 'data'))[0])).toBe('two')
    await once(stream, 'end')
  })

  test('twenty downloads that nobody reads hold up no other, and wait for their reader', async () => {
    const { tunnels } = await pair()
    const stalled = await Promise.all(
      Array.from({ length: 20 }, () => tunnels.request('w1', { method: 'GET', path: '/large' })),
    )
    await sleep(200)
    const begun = performance.now()
    for (let i = 0; i < 5; i++) {
      const { stream } = await tunnels.request('w1', { method: 'GET', path: '/large' })
      expect(await bytesOf(stream)).toBe(large)
    }
    expect(performance.now() - begun).toBeLessThan(5_000)
    expect(await bytesOf((stalled[7] as (typeof stalled)[0]).stream)).toBe(large)
    for (const { stream } of stalled) stream.destroy()
  })

  test('a connection that is cut is dialled again, and requests wait for that', async () => {
    const { tunnels, sockets } = await pair()
    for (const socket of sockets) socket.destroy()
    await sleep(20)
    const { status, stream } = await tunnels.request('w1', { method: 'POST', path: '/again', body: 'x' })
    expect(status).toBe(200)
    expect(await bytesOf(stream)).toBe(1)
  })
})

test('a frozen connection is noticed by both ends', async () => {
  const tunnels = openTunnels({ log, pingMs: 100, graceMs: 50 })
  const plane = await controlPlane(false, tunnels)
  // Between the two, a wire that can be frozen: it stays open and carries nothing.
  const wires: Socket[] = []
  const between = net.createServer((inner) => {
    const outer = net.connect(plane.port, '127.0.0.1')
    wires.push(inner, outer)
    inner.pipe(outer).pipe(inner)
    for (const socket of [inner, outer]) socket.on('error', () => socket.destroy())
  })
  between.listen(0, '127.0.0.1')
  await once(between, 'listening')
  closers.push(() => {
    for (const wire of wires) wire.destroy()
    between.close()
  })
  const url = new URL(`http://127.0.0.1:${(between.address() as AddressInfo).port}`)
  const worker = openTunnel({ url, credential: 'c', serve: answers, log, pingMs: 100 })
  closers.push(() => worker.close())
  await worker.opened
  await expect.poll(() => tunnels.connected('w1')).toBe(true)

  const pending = tunnels.request('w1', { method: 'POST', path: '/never', body: '' })
  const refused = expect(pending).rejects.toMatchObject({ code: 'WORKER_UNREACHABLE' })
  const frozen = wires.splice(0)
  for (const wire of frozen) {
    wire.unpipe()
    wire.pause()
  }
  await refused
  // The worker dials again by itself, through a wire that works.
  await expect.poll(() => wires.length, { timeout: 3_000 }).toBe(2)
  await expect.poll(() => tunnels.connected('w1')).toBe(true)
  for (const wire of frozen) wire.destroy()
})

test('a worker without a tunnel is unreachable, a request that is given up ends at the worker', async () => {
  const tunnels = openTunnels({ log, graceMs: 20 })
  await expect(tunnels.request('nobody', { method: 'GET', path: '/' })).rejects.toMatchObject({
    code: 'WORKER_UNREACHABLE',
  })
  const plane = await controlPlane(false, tunnels)
  const { promise: gone, resolve } = Promise.withResolvers<void>()
  const serve: TunnelServer = (stream) => void stream.once('close', resolve)
  const worker = openTunnel({ url: plane.url, credential: 'c', serve, log })
  closers.push(() => worker.close())
  await worker.opened
  const giveUp = new AbortController()
  const pending = tunnels.request('w1', { method: 'POST', path: '/never', signal: giveUp.signal })
  setTimeout(() => giveUp.abort(new Error('given up')), 50)
  await expect(pending).rejects.toThrow('given up')
  await gone
})
