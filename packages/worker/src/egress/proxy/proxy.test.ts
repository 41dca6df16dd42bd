import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createTestAuthority } from '../../../../../test/fakes/certificates.ts'
import { openUpstream, type Upstream } from '../../../../../test/fakes/upstream.ts'
import { startEgressProcess } from './testing/egress-process.ts'

const key = 'sk-test-0123456789abcdef'
const pins = [
  { name: 'api.test', address: '127.0.0.11' },
  { name: 'plain.test', address: '127.0.0.12' },
  { name: 'gone.test', address: '127.0.0.13' },
]

let upstream: Upstream
let egress: Awaited<ReturnType<typeof startEgressProcess>>
let slot: Awaited<ReturnType<typeof egress.openSlot>>

beforeAll(async () => {
  const authority = await createTestAuthority()
  upstream = await openUpstream()
  upstream.certify('', await authority.issue(['api.test', 'plain.test']))
  const names = ['api.test', 'plain.test']
  egress = await startEgressProcess({
    trusted: [authority.certificate],
    resolve: names.flatMap((name) => [
      [`${name}:443`, `127.0.0.1:${upstream.port}`],
      [`${name}:80`, `127.0.0.1:${upstream.plainPort}`],
    ]) as [string, string][],
  })
  slot = await egress.openSlot('one')
  await slot.allow(
    {
      allow: ['plain.test'],
      credentials: { 'api.test': { headers: { 'x-api-key': key }, placeholders: [] } },
    },
    pins,
  )
})

afterAll(async () => {
  await egress.close()
  await upstream.close()
})

interface Asked {
  address: string
  servername?: string
  headers?: Record<string, string>
  method?: string
  path?: string
  body?: string
  tls?: boolean
}

async function ask({ address, servername, tls = true, body, ...options }: Asked) {
  const whole = { host: address, port: tls ? slot.ports.https : slot.ports.http, agent: false, ...options }
  const request = tls ? httpsRequest({ ...whole, servername, ca: slot.authority.certificate }) : httpRequest(whole)
  const reply = new Promise<{ status: number; headers: object; text: string }>((resolve, reject) => {
    request.on('error', reject).on('response', async (response) => {
      resolve({ status: response.statusCode ?? 0, headers: response.headers, text: await text(response) })
    })
  })
  request.end(body)
  return reply
}

test('a request gets out with the credential, and nothing of the client beside it', async () => {
  const headers = { Host: 'api.test', 'X-Api-Key': 'mine', authorization: 'Bearer mine', 'x-other': 'kept' }
  const reply = await ask({ address: '127.0.0.11', servername: 'api.test', headers, path: '/v1/messages?a=b' })
  expect(reply).toMatchObject({ status: 200, text: 'hello from api.test' })
  const seen = upstream.requests.at(-1)
  expect(seen).toMatchObject({
    secure: true,
    target: '/v1/messages?a=b',
    headers: { 'x-api-key': key, 'x-other': 'kept' },
  })
  expect(seen?.headers).not.toHaveProperty('authorization')
  const [record] = await slot.records()
  expect(record).toMatchObject({
    decision: 'allowed',
    port: 443,
    host: 'api.test',
    method: 'GET',
    path: '/v1/messages',
    status: 200,
    responseBytes: 19,
    credential: true,
  })
})

test('a body gets out, and an echo of the credential does not come back', async () => {
  upstream.answer('/echo', (seen, response) => response.end(`${seen.body} ${seen.headers['x-api-key']}`))
  const headers = { Host: 'api.test' }
  const reply = await ask({
    address: '127.0.0.11',
    servername: 'api.test',
    headers,
    path: '/echo',
    method: 'POST',
    body: 'said',
  })
  expect(reply).toMatchObject({ status: 200, text: 'said ***' })
  expect(await slot.records()).toMatchObject([{ requestBytes: 4, method: 'POST' }])
})

test('in the clear the credential is never added', async () => {
  const reply = await ask({ address: '127.0.0.11', tls: false, headers: { Host: 'api.test' } })
  expect(reply.status).toBe(200)
  expect(upstream.requests.at(-1)).toMatchObject({ secure: false })
  expect(upstream.requests.at(-1)?.headers).not.toHaveProperty('x-api-key')
  const [record] = await slot.records()
  expect(record).toMatchObject({ decision: 'allowed', port: 80 })
  expect(record).not.toHaveProperty('credential')
})

test.each([
  {
    reason: 'sni-host-mismatch',
    status: 421,
    asked: { address: '127.0.0.11', servername: 'api.test', headers: { Host: 'plain.test' } },
  },
  {
    reason: 'host-address-mismatch',
    status: 421,
    asked: { address: '127.0.0.11', tls: false, headers: { Host: 'plain.test' } },
  },
  { reason: 'host-malformed', status: 400, asked: { address: '127.0.0.11', tls: false, headers: { Host: 'a b' } } },
  {
    reason: 'address-not-pinned',
    status: 403,
    asked: { address: '127.0.0.99', tls: false, headers: { Host: 'plain.test' } },
  },
  {
    reason: 'method-refused',
    status: 405,
    asked: { address: '127.0.0.11', tls: false, method: 'TRACE', headers: { Host: 'api.test' } },
  },
])('$reason is answered $status, recorded, and reaches nobody', async ({ reason, status, asked }) => {
  const before = upstream.requests.length
  const reply = await ask(asked)
  expect(reply.status).toBe(status)
  expect(JSON.parse(reply.text)).toMatchObject({ error: { code: 'EGRESS_REFUSED', reason } })
  expect(await slot.records()).toMatchObject([{ decision: 'refused', reason, status }])
  expect(upstream.requests.length).toBe(before)
})

test.each([
  { reason: 'sni-address-mismatch', asked: { address: '127.0.0.11', servername: 'plain.test' } },
  { reason: 'sni-missing', asked: { address: '127.0.0.11', servername: '' } },
  { reason: 'address-not-pinned', asked: { address: '127.0.0.99', servername: 'plain.test' } },
  { reason: 'name-not-allowed', asked: { address: '127.0.0.13', servername: 'gone.test' } },
])('a handshake ends by $reason', async ({ reason, asked }) => {
  await expect(ask(asked)).rejects.toThrow()
  expect(await slot.records()).toMatchObject([{ decision: 'refused', reason, port: 443 }])
})
