import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { connect, createServer, type SecureContext } from 'node:tls'
import { expect, test } from 'vitest'
import { createAuthority } from '../authority.ts'
import { createLeaves } from './leaf.ts'

async function shake(leaf: SecureContext, servername: string, ca: string) {
  const server = createServer({ SNICallback: (_name, done) => done(null, leaf) }).listen(0, '127.0.0.1')
  server.on('tlsClientError', () => undefined)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const client = connect({ port, host: '127.0.0.1', servername, ca })
  try {
    await once(client, 'secureConnect')
    return client.getPeerCertificate().subjectaltname
  } finally {
    client.destroy()
    server.close()
  }
}

test('a leaf proves exactly one host, to who believes the authority of this sandbox', async () => {
  const [own, other] = await Promise.all([createAuthority(), createAuthority()])
  const leaves = createLeaves(own)
  const leaf = await leaves('api.test')
  expect(await shake(leaf, 'api.test', own.certificate)).toBe('DNS:api.test')
  await expect(shake(leaf, 'sub.api.test', own.certificate)).rejects.toThrow(/altnames/)
  await expect(shake(leaf, 'api.test', other.certificate)).rejects.toThrow(/unable to verify|self-signed/)
})

test('a host has one leaf, made once', async () => {
  const leaves = createLeaves(await createAuthority())
  const [first, second] = await Promise.all([leaves('api.test'), leaves('api.test')])
  expect(second).toBe(first)
  const longest = `${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}.${'d'.repeat(60)}.test`
  expect(await leaves(longest)).not.toBe(first)
})
