import { describe, expect, test } from 'vitest'
import { drivers } from '../conformance/drivers.ts'
import { converse, openEgressWorld, reasonIn } from '../support/egress.ts'
import { inSandbox } from './support/boxes.ts'
import { clientHelloFor } from './support/client-hello.ts'

const allowed = ['allowed.test', '*.wild.test', '*.github.test', 'xn--bcher-kva.test', 'evil.com.443.allowed.test']
const others = [
  'evil.test',
  'sub.allowed.test',
  'wild.test',
  'notgithub.test',
  'github.test.evil.test',
  'xn--llowed-2nf.test',
  'allowed.test.evil.test',
  'notallowed.test',
]
const hosts = ['allowed.test', 'a.wild.test', 'b.a.wild.test', 'api.github.test', 'xn--bcher-kva.test', ...others]

describe.each(Object.entries(drivers))('%s: names', { timeout: 30_000 }, (_, driver) => {
  const world = openEgressWorld(driver, { hosts })
  const box = inSandbox(world, { allowOut: allowed })

  test.each(['allowed.test', 'a.wild.test', 'b.a.wild.test', 'api.github.test', 'xn--bcher-kva.test'])(
    '%s is allowed, over TLS and in the clear',
    async (host) => {
      for (const secure of [true, false]) {
        expect(await box().request({ host, secure })).toMatchObject({ status: 200, body: `hello from ${host}` })
      }
      expect(world.upstream.requests.map(({ secure }) => secure)).toEqual([true, false])
      await box().recorded({ decision: 'allowed', host, port: 443, status: 200 })
      await box().recorded({ decision: 'allowed', host, port: 80, status: 200 })
    },
  )

  test.each(others)('%s has no address, and none that it could borrow', async (host) => {
    const packet = await box().ask(host)
    expect([packet.answers, ['REFUSED', 'NXDOMAIN']]).toEqual([[], expect.arrayContaining([rcode(packet)])])
    await box().recorded({ decision: 'refused', reason: 'name-not-allowed', port: 53, host })

    const address = await box().address('allowed.test')
    await expect(box().tls(host, { address })).rejects.toThrow()
    await box().recorded({ decision: 'refused', reason: 'sni-address-mismatch', port: 443, host })

    const secure = await box().request({ host: 'allowed.test', headers: [['Host', host]] })
    expect([secure.status, reasonIn(secure)]).toEqual([421, 'sni-host-mismatch'])
    await box().recorded({ decision: 'refused', reason: 'sni-host-mismatch', port: 443, host })

    const plain = await box().request({ host: 'allowed.test', secure: false, headers: [['Host', host]] })
    expect([plain.status, reasonIn(plain)]).toEqual([421, 'host-address-mismatch'])
    await box().recorded({ decision: 'refused', reason: 'host-address-mismatch', port: 80, host })
    expect(world.upstream.requests).toEqual([])
    expect(world.nameServer.asked).toEqual([])
  })

  test.each(['ALLOWED.test', 'allowed.test.', 'Allowed.Test.'])('%s is allowed.test', async (name) => {
    expect((await box().ask(name)).answers).toHaveLength(1)
    for (const secure of [true, false]) {
      const reply = await box().request({ host: 'allowed.test', secure, headers: [['Host', name]] })
      expect(reply.status).toBe(200)
    }
    const tls = await box().tls('allowed.test', { servername: name.replace(/\.$/, '') })
    tls.destroy()
    // The host hears one spelling of its name, whatever was written inside.
    expect(world.upstream.requests.map(({ headers }) => headers.host)).toEqual(['allowed.test', 'allowed.test'])
  })

  test.each([
    ['a NUL', 'allowed.test\0.evil.test'],
    ['a CR', 'allowed.test\r.evil.test'],
    ['a space', 'allowed.test .evil.test'],
    ['a percent sign', 'allowed.test%00.evil.test'],
    ['percent bytes of a letter', '%61llowed.test'],
    ['userinfo', 'allowed.test@evil.test'],
    ['userinfo before it', 'evil.test@allowed.test'],
    ['a fragment', 'evil.test#.allowed.test'],
    ['a slash', 'evil.test/.allowed.test'],
    ['a backslash', 'evil.test\\.allowed.test'],
    ['a question mark', 'evil.test?.wild.test'],
    ['a port and more', 'evil.com:443.allowed.test'],
    ['a wildcard', '*.wild.test'],
    ['an empty label', 'a..wild.test'],
    ['a leading dot', '.wild.test'],
    ['two trailing dots', 'allowed.test..'],
    ['a letter of another script', 'аllowed.test'],
    ['a full-width dot', 'a\u{ff0e}wild.test'],
    ['a soft hyphen', 'al\u{ad}lowed.test'],
    ['a long s', 'ſub.wild.test'],
    ['a Kelvin sign', '\u{212a}.wild.test'],
    ['a list', 'allowed.test,evil.test'],
    ['brackets', '[allowed.test]'],
    ['a label of 64 bytes', `${'x'.repeat(64)}.wild.test`],
    ['more than 253 bytes', `${'x.'.repeat(123)}wild.test`],
  ])('%s in a name makes it none', async (_, name) => {
    const bytes = Buffer.from(name)
    const host = bytes.toString('latin1')
    for (const secure of [true, false]) {
      const head = `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`
      const { replies, closed } = await box().send('allowed.test', head, { port: secure ? 443 : 80, answers: 1 })
      expect([replies[0]?.status ?? (closed ? 'closed' : 'open')]).toEqual([expect.toBeOneOf([400, 421, 'closed'])])
      if (replies[0]) {
        const mismatch = secure ? 'sni-host-mismatch' : 'host-address-mismatch'
        expect(['host-malformed', 'request-malformed', mismatch]).toContain(reasonIn(replies[0]))
        await box().recorded({ decision: 'refused', port: secure ? 443 : 80, reason: reasonIn(replies[0]) as never })
      }
    }
    const socket = await box().dial(await box().address('allowed.test'), 443)
    const before = box().records.length
    const { closed } = await converse(socket, [(await clientHelloFor(bytes)).toString('latin1')], 1)
    expect(closed).toBe(true)
    const ofHandshake = {
      decision: 'refused',
      reason: expect.stringMatching(/^(sni-address-mismatch|sni-missing|tls-failed)$/),
    }
    await expect.poll(() => box().records.slice(before)).toContainEqual(expect.objectContaining(ofHandshake))
    expect(world.upstream.requests).toEqual([])
  })

  test.each([
    ['a space', 'a b'],
    ['a NUL', 'a\0b'],
    ['a line break', 'a\r\nb'],
    ['a colon', 'evil.test:443'],
    ['an at sign', 'evil@b'],
    ['a slash', 'evil/b'],
    ['a percent sign', '%61'],
    ['an asterisk', '*'],
    ['a hyphen before it', '-a'],
    ['a hyphen after it', 'a-'],
    ['bytes that are no letters', '\xff\xfe'],
    ['another script', 'аpi'],
  ])('%s in a label is not what a wildcard stands for', async (_, label) => {
    const { answers } = await box().ask(`${label}.wild.test`)
    expect(answers).toEqual([])
    await box().recorded({ decision: 'refused', reason: 'name-not-allowed', port: 53 })
    expect(world.nameServer.asked).toEqual([])
  })

  test('a name with a port of another service is not the name with the usual one', async () => {
    for (const [port, secure] of [
      ['22', true],
      ['80', true],
      ['443', false],
      ['8443', true],
      ['', true],
      ['443x', true],
    ] as const) {
      const reply = await box().request({ host: 'allowed.test', secure, headers: [['Host', `allowed.test:${port}`]] })
      expect([port, reply.status]).toEqual([port, expect.toBeOneOf([400, 421])])
    }
    expect(world.upstream.requests).toEqual([])
    const usual = await box().request({ host: 'allowed.test', headers: [['Host', 'allowed.test:443']] })
    expect(usual.status).toBe(200)
  })

  test('an empty list allows nothing', async () => {
    const none = await world.start({ allowOut: [] })
    expect((await none.ask('allowed.test')).answers).toEqual([])
    await none.recorded({ decision: 'refused', reason: 'name-not-allowed', host: 'allowed.test' })
    const address = await box().address('allowed.test')
    await expect(none.tls('allowed.test', { address })).rejects.toThrow()
    await none.recorded({ decision: 'refused', reason: 'address-not-pinned', port: 443 })
    const plain = await none.send('allowed.test', 'GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n', {
      port: 80,
      address,
      answers: 1,
    })
    expect(plain.replies.map(({ status }) => status)).toEqual([expect.toBeOneOf([403, 421])])
    await none.recorded({ decision: 'refused', reason: 'address-not-pinned', port: 80 })
    expect(world.upstream.requests).toEqual([])
  })

  test('a name with credentials is allowed by that, and its sub-domains are not', async () => {
    const credentials = { 'allowed.test': { headers: { 'x-api-key': 'not-so-secret' } } }
    const only = await world.start({ credentials })
    expect(await only.request({ host: 'allowed.test' })).toMatchObject({ status: 200 })
    expect((await only.ask('sub.allowed.test')).answers).toEqual([])
    await only.recorded({ decision: 'refused', reason: 'name-not-allowed', host: 'sub.allowed.test' })
  })
})

const rcode = (packet: object) => ('rcode' in packet ? packet.rcode : 'none')
