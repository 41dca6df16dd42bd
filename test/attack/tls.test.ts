import { connect as connectHttp2, constants } from 'node:http2'
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls'
import { beforeAll, describe, expect, test } from 'vitest'
import { drivers } from '../conformance/drivers.ts'
import { createTestAuthority, selfSigned } from '../fakes/certificates.ts'
import { type Box, converse, openEgressWorld, reasonIn } from '../support/egress.ts'
import { inSandbox } from './support/boxes.ts'
import { clientHello, clientHelloFor } from './support/client-hello.ts'

const untrusted = {
  'expired.test': 'its certificate has expired',
  'future.test': 'its certificate is not valid yet',
  'selfsigned.test': 'only it itself vouches for it',
  'unknown.test': 'an authority vouches for it that nobody knows',
  'wrongname.test': 'its certificate is of another name',
  'deep.sub.wildcard.test': 'a wildcard stands for one label only',
  'apex.test': 'a wildcard is not what it hangs from',
}
const hosts = ['allowed.test', 'second.test', 'evil.test', 'one.wildcard.test', ...Object.keys(untrusted)]
const allowOut = hosts.filter((host) => host !== 'evil.test')
const get = (host: string) => `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`

describe.each(Object.entries(drivers))('%s: TLS', { timeout: 30_000 }, (_, driver) => {
  const world = openEgressWorld(driver, { hosts, ready: 3 })
  const box = inSandbox(world, { allowOut })

  beforeAll(async () => {
    const { authority, upstream } = world
    const day = 86_400_000
    const past = { notBefore: Date.now() - 2 * day, notAfter: Date.now() - day }
    const future = { notBefore: Date.now() + day, notAfter: Date.now() + 2 * day }
    const stranger = await createTestAuthority('a stranger')
    upstream.certify('expired.test', await authority.issue(['expired.test'], past))
    upstream.certify('future.test', await authority.issue(['future.test'], future))
    upstream.certify('selfsigned.test', await selfSigned(['selfsigned.test']))
    upstream.certify('unknown.test', await stranger.issue(['unknown.test']))
    upstream.certify('wrongname.test', await authority.issue(['allowed.test', 'wrongname.test.evil.test']))
    upstream.certify('one.wildcard.test', await authority.issue(['*.wildcard.test']))
    upstream.certify('deep.sub.wildcard.test', await authority.issue(['*.wildcard.test']))
    upstream.certify('apex.test', await authority.issue(['*.apex.test']))
  })

  /** Sends bytes as a client's first; closed is all that may come of it. */
  const firstBytes = async (bytes: Buffer | string, target: Box = box(), address?: string) => {
    const socket = await target.dial(address ?? (await target.address('allowed.test')), 443)
    return converse(socket, [bytes.toString('latin1')], Number.POSITIVE_INFINITY).catch(() => ({ closed: true }))
  }

  test.each(['allowed.test', 'one.wildcard.test'])(
    '%s is reached, and its name is in the handshake there',
    async (host) => {
      expect(await box().request({ host })).toMatchObject({ status: 200, body: `hello from ${host}` })
      expect(world.upstream.requests).toMatchObject([{ secure: true, servername: host }])
    },
  )

  describe('towards the sandbox', () => {
    test('a handshake without a name is refused', async () => {
      const address = await box().address('allowed.test')
      await expect(box().tls('allowed.test', { address, servername: false })).rejects.toThrow()
      await box().recorded({ decision: 'refused', reason: 'sni-missing', port: 443 })
      expect(world.upstream.requests).toEqual([])
    })

    test.each(['evil.test', 'second.test'])('Host %s under the name of another host is refused', async (host) => {
      const { replies } = await box().send('allowed.test', get(host), { answers: 1 })
      expect(replies.map((reply) => [reply.status, reasonIn(reply)])).toEqual([[421, 'sni-host-mismatch']])
      await box().recorded({ decision: 'refused', reason: 'sni-host-mismatch', host })
      expect(world.upstream.requests).toEqual([])
    })

    test(':authority of another host is refused, and the connection still serves its own', async () => {
      const socket = await box().tls('allowed.test', { alpn: ['h2'] })
      const session = connectHttp2('https://allowed.test', { createConnection: () => socket })
      const ask = (authority: string) =>
        new Promise<[number, string]>((resolve, reject) => {
          const stream = session.request({ ':path': '/', ':authority': authority })
          let status = 0
          let body = ''
          stream.on('response', (headers) => {
            status = headers[constants.HTTP2_HEADER_STATUS] as unknown as number
          })
          stream.setEncoding('utf8').on('data', (chunk: string) => {
            body += chunk
          })
          stream.on('end', () => resolve([status, body])).on('error', reject)
        })
      expect(await ask('allowed.test')).toEqual([200, 'hello from allowed.test'])
      for (const other of ['evil.test', 'second.test']) {
        const [status, body] = await ask(other)
        expect([status, JSON.parse(body).error.reason]).toEqual([421, 'sni-host-mismatch'])
        await box().recorded({ decision: 'refused', reason: 'sni-host-mismatch', host: other })
      }
      expect(await ask('allowed.test')).toEqual([200, 'hello from allowed.test'])
      session.destroy()
      expect(world.upstream.requests).toHaveLength(2)
    })

    /** A client whose bytes arrive one by one. */
    const inPieces = async (servername: string) => {
      const hello = await clientHello(servername)
      const socket = await box().dial(await box().address('allowed.test'), 443)
      const answered = new Promise<string>((resolve) => {
        socket.once('data', ([type]: Buffer) => resolve(type === 22 ? 'a handshake' : 'an alert'))
        socket.once('close', () => resolve('nothing'))
        socket.once('end', () => resolve('nothing'))
      })
      for (const byte of hello) {
        if (socket.destroyed || !socket.writable) break
        socket.write(Buffer.from([byte]))
        // Each in a segment of its own, or nearly so.
        await new Promise((resolve) => setImmediate(resolve))
      }
      const answer = await answered
      socket.destroy()
      return answer
    }

    test('a handshake in one-byte pieces is read as one', async () => {
      expect(await inPieces('allowed.test')).toBe('a handshake')
      expect(await inPieces('evil.test')).not.toBe('a handshake')
      await box().recorded({ decision: 'refused', reason: 'sni-address-mismatch', host: 'evil.test' })
    })

    test.each([
      ['a request in the clear', get('allowed.test')],
      ['SSH', 'SSH-2.0-OpenSSH_9.9\r\n'],
      ['zeros', '\0'.repeat(600)],
      ['an alert', '\x15\x03\x01\x00\x02\x02\x28'],
      ['a preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ])('%s on port 443 is not TLS', async (_, bytes) => {
      const before = box().records.length
      expect(await firstBytes(bytes)).toMatchObject({ closed: true })
      await expect
        .poll(() => box().records.slice(before))
        .toContainEqual(
          expect.objectContaining({ decision: 'refused', reason: expect.stringMatching(/not-tls|tls-failed/) }),
        )
      expect(world.upstream.requests).toEqual([])
    })

    test('a handshake cut short or garbled is refused, and recorded', async () => {
      const hello = await clientHello('allowed.test')
      const garbled = Buffer.from(hello)
      garbled.fill(0xff, 40)
      const before = box().records.length
      expect(await firstBytes(garbled)).toMatchObject({ closed: true })
      await expect
        .poll(() => box().records.slice(before))
        .toContainEqual(expect.objectContaining({ decision: 'refused', reason: 'tls-failed' }))
      expect(world.upstream.requests).toEqual([])
    })

    test('TLS 1.0 and 1.1 are not spoken', async () => {
      for (const version of ['TLSv1', 'TLSv1.1'] as const) {
        const socket = await box().dial(await box().address('allowed.test'), 443)
        const old: ConnectionOptions = { minVersion: version, maxVersion: version, ciphers: 'ALL:@SECLEVEL=0' }
        const before = box().records.length
        expect(await handshake({ ...old, socket, servername: 'allowed.test' })).not.toBe('done')
        await expect
          .poll(() => box().records.slice(before))
          .toContainEqual(expect.objectContaining({ decision: 'refused', reason: 'tls-failed' }))
      }
      expect(world.upstream.requests).toEqual([])
    })

    test('each session has an authority of its own, which the other does not trust', async () => {
      const other = await world.start({ allowOut })
      expect(other.inlay.certificate).not.toBe(box().inlay.certificate)
      expect(await other.request({ host: 'allowed.test' })).toMatchObject({ status: 200 })
      await expect(other.tls('allowed.test', { ca: box().inlay.certificate })).rejects.toThrow(/certificate/)
      await expect(box().tls('allowed.test', { ca: other.inlay.certificate })).rejects.toThrow(/certificate/)
      await box().recorded({ decision: 'refused', reason: 'tls-failed', port: 443 })
    })

    test('a leaf names one host, is no authority, and vouches in this sandbox only', async () => {
      const socket = await box().tls('allowed.test')
      const leaf = socket.getPeerX509Certificate()
      socket.destroy()
      expect(leaf?.subjectAltName).toBe('DNS:allowed.test')
      expect(leaf?.ca).toBe(false)
      // Its authority is not one that may vouch for the upstream.
      expect(world.authority.certificate).not.toBe(box().inlay.certificate)
    })

    test('a session resumed under another name, or in another sandbox, gains nothing', async () => {
      const other = await world.start({ allowOut: ['second.test'] })
      const first = await box().tls('allowed.test')
      const ticket = await new Promise<Buffer>((resolve) => {
        first.once('session', resolve)
        first.write(get('allowed.test'))
      })
      await expect.poll(() => world.upstream.requests).toHaveLength(1)
      first.destroy()
      world.upstream.forget()
      for (const [target, host, ca] of [
        [box(), 'second.test', box().inlay.certificate],
        [other, 'second.test', other.inlay.certificate],
      ] as const) {
        const socket = await target.dial(await target.address(host), 443)
        const tls = connectTls({ socket, servername: host, ca, session: ticket })
        const { replies } = await converse(tls, [get('allowed.test')], 1)
        expect(replies.map(reasonIn)).toEqual(['sni-host-mismatch'])
        await target.recorded({ decision: 'refused', reason: 'sni-host-mismatch', host: 'allowed.test' })
      }
      const address = await other.address('second.test')
      const socket = await other.dial(address, 443)
      const resumed = await handshake({
        socket,
        servername: 'allowed.test',
        session: ticket,
        ca: other.inlay.certificate,
      })
      expect(resumed).not.toBe('done')
      await other.recorded({ decision: 'refused', reason: 'sni-address-mismatch', host: 'allowed.test' })
      expect(world.upstream.requests).toEqual([])
    })

    test.each(['TLSv1.2', 'TLSv1.3'] as const)(
      '%s: a session is not resumed, neither here nor elsewhere',
      async (version) => {
        const { certificate: ca } = box().inlay
        let isReused = false
        const open = async (host: string, session?: Buffer) => {
          const socket = await box().dial(await box().address(host), 443)
          // Always the name that it was made for: a resumed handshake would ask for no certificate.
          const named = { servername: 'allowed.test', minVersion: version, maxVersion: version }
          const tls = connectTls({ socket, ca, session, ...named })
          return tls.once('secureConnect', () => {
            isReused ||= tls.isSessionReused()
          })
        }
        const first = await open('allowed.test')
        let session: Buffer | undefined
        first.on('session', (ticket: Buffer) => {
          session = ticket
        })
        await converse(first, [get('allowed.test')], 1)
        // A client that tries is served all the same.
        expect((await converse(await open('allowed.test', session), [get('allowed.test')], 1)).replies).toHaveLength(1)

        world.upstream.forget()
        const before = box().records.length
        expect((await converse(await open('second.test', session), [get('allowed.test')], 1)).replies).toEqual([])
        await expect
          .poll(() => box().records.slice(before), { interval: 10 })
          .toContainEqual(expect.objectContaining({ reason: 'sni-address-mismatch', host: 'allowed.test' }))
        expect([world.upstream.requests, isReused]).toEqual([[], false])
      },
    )

    test.each(['10.0.0.10', '198.18.0.1', '127.0.0.1', '2606:4700::1'])(
      'an address as the name, %s, is none',
      async (name) => {
        const before = box().records.length
        expect(await firstBytes(await clientHelloFor(Buffer.from(name)))).toMatchObject({ closed: true })
        await expect
          .poll(() => box().records.slice(before), { interval: 10 })
          .toContainEqual(expect.objectContaining({ decision: 'refused', reason: 'sni-address-mismatch' }))
        expect(world.upstream.requests).toEqual([])
      },
    )

    test('a dot after the name changes nothing: the host hears it without', async () => {
      const { replies } = await box().send('allowed.test', get('allowed.test.'), {
        servername: 'ALLOWED.test',
        answers: 1,
      })
      expect(replies).toMatchObject([{ status: 200 }])
      expect(world.upstream.requests).toMatchObject([{ servername: 'allowed.test', headers: { host: 'allowed.test' } }])
    })

    test('TLS on port 80 is no request', async () => {
      const socket = await box().dial(await box().address('allowed.test'), 80)
      const { replies, closed } = await converse(socket, [(await clientHello('allowed.test')).toString('latin1')], 1)
      expect([replies[0]?.status ?? 400, closed || replies.length]).toEqual([400, expect.anything()])
      await box().recorded({ decision: 'refused', reason: 'request-malformed', port: 80 })
      expect(world.upstream.requests).toEqual([])
    })

    test('no other protocol is agreed on than HTTP', async () => {
      for (const alpn of [['http/1.1'], ['h2'], ['h2', 'http/1.1']]) {
        const socket = await box().tls('allowed.test', { alpn })
        expect(socket.alpnProtocol).toBe(alpn[0])
        socket.destroy()
      }
      const socket = await box().dial(await box().address('allowed.test'), 443)
      const { certificate: ca } = box().inlay
      const outcome = await handshake({ socket, servername: 'allowed.test', ca, ALPNProtocols: ['dot', 'acme-tls/1'] })
      expect(outcome).not.toBe('done')
    })
  })

  describe('towards the host', () => {
    test.each(Object.entries(untrusted))('%s is not trusted: %s', async (host) => {
      const reply = await box().request({ host, headers: [['x-canary', 'canary']] })
      expect([reply.status, reasonIn(reply)]).toEqual([502, 'upstream-certificate'])
      await box().recorded({ reason: 'upstream-certificate', host })
      expect(world.upstream.requests).toEqual([])
    })
  })
})

function handshake(options: ConnectionOptions): Promise<string> {
  return new Promise((resolve) => {
    const socket: TLSSocket = connectTls(options)
    const end = (how: string) => {
      resolve(how)
      socket.destroy()
    }
    socket.once('secureConnect', () => end('done'))
    socket.once('error', ({ message }) => end(message))
    socket.once('close', () => end('closed'))
  })
}
