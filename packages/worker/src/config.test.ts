import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { rootCertificates } from 'node:tls'
import { expect, test } from 'vitest'
import { readConfig } from './config.ts'

const least = { PAWS_URL: 'http://127.0.0.1:8080', PAWS_GUEST_AGENT: '/g', PAWS_SLOT_HELPER: '/s' }

test('little must be set, and an empty variable is an unset one', () => {
  const config = readConfig({ ...least, PAWS_MAX_SESSIONS: '', PAWS_WORKER_NAME: '' })
  expect(config.url.href).toBe('http://127.0.0.1:8080/')
  expect(config.maxSessions).toBeGreaterThanOrEqual(5)
  expect(config.name).toMatch(/^[a-z0-9][a-z0-9-]*$/)
  expect(config).toMatchObject({ driver: 'auto', drainMs: 30_000, logLevel: 'info', enrolmentToken: undefined })
})

test('everything that is wrong is named at once, with what would be right', () => {
  const wrong = { PAWS_URL: 'paws', PAWS_MAX_SESSIONS: '0', PAWS_DRIVER: 'docker', PAWS_WORKER_NAME: 'Über' }
  expect(() => readConfig({ ...wrong, PAWS_SLOTS: '1.5' })).toThrow(
    [
      'Settings are wrong:',
      'PAWS_MAX_SESSIONS must be a whole number from 1 to 10000',
      'PAWS_URL must be a URL like https://paws.example.com',
      'PAWS_DRIVER must be one of auto, process',
      'PAWS_GUEST_AGENT is not set: it must be the path of the built guest agent',
      'PAWS_SLOT_HELPER is not set: it must be the path of the built slot helper',
      'PAWS_SLOTS must be a whole number from 1 to 1000',
      'PAWS_WORKER_NAME must be a host label: a-z, 0-9, "-"',
    ].join('\n'),
  )
})

test.each(['http://paws.example.com', 'http://10.0.0.1', 'http://127.0.0.1.example.com', 'http://[::2]'])(
  'plain http to %s is refused: secrets cross that line',
  (PAWS_URL) => expect(() => readConfig({ ...least, PAWS_URL })).toThrow('PAWS_URL must be https'),
)

test.each(['https://paws.example.com', 'http://localhost:1', 'http://127.1.2.3', 'http://[::1]:8080'])(
  '%s is taken',
  (PAWS_URL) => expect(readConfig({ ...least, PAWS_URL }).url).toEqual(new URL(PAWS_URL)),
)

test('the token may come in a file, which may be gone once it was used', () => {
  const folder = mkdtempSync(join(tmpdir(), 'paws-config-'))
  const file = join(folder, 'token')
  writeFileSync(file, 'enrol_1\n')
  expect(readConfig({ ...least, PAWS_ENROLMENT_TOKEN_FILE: file }).enrolmentToken).toBe('enrol_1')
  rmSync(folder, { recursive: true })
  expect(readConfig({ ...least, PAWS_ENROLMENT_TOKEN_FILE: file }).enrolmentToken).toBeUndefined()
})

test('what leads sandboxes elsewhere is read, and wrong entries are named', () => {
  const right = {
    PAWS_EGRESS_RESOLVE: 'API.example.com:443=127.0.0.1:8443, b.test:80=[::1]:8080',
    PAWS_EGRESS_DNS: '10.0.0.53:53,[::1]:5353',
  }
  expect(readConfig({ ...least, ...right }).egress).toEqual({
    resolve: [
      ['api.example.com:443', '127.0.0.1:8443'],
      ['b.test:80', '[::1]:8080'],
    ],
    nameServers: ['10.0.0.53:53', '[::1]:5353'],
    extraCa: [],
  })
  for (const entry of ['a.test=127.0.0.1:1', 'a.test:443', 'a.test:443=b.test:443', 'a.test:0=127.0.0.1:1', '=']) {
    expect(() => readConfig({ ...least, PAWS_EGRESS_RESOLVE: `b.test:1=1.2.3.4:5,${entry}` })).toThrow(
      `PAWS_EGRESS_RESOLVE must be entries like api.example.com:443=127.0.0.1:8443, with commas; not "${entry}"`,
    )
  }
  expect(() => readConfig({ ...least, PAWS_EGRESS_DNS: '10.0.0.53' })).toThrow('PAWS_EGRESS_DNS must be addresses like')
})

test("certificates of the operator's own come in a file", () => {
  const folder = mkdtempSync(join(tmpdir(), 'paws-config-'))
  const file = join(folder, 'ca.pem')
  const [one = '', two = ''] = rootCertificates
  const read = (text: string) => {
    writeFileSync(file, text)
    return readConfig({ ...least, PAWS_EGRESS_EXTRA_CA: file }).egress.extraCa
  }
  expect(read(`# ours\n${one}\nand\n${two}`).map((pem) => pem.trim())).toEqual([one, two])
  expect(() => read('no certificate')).toThrow(
    `PAWS_EGRESS_EXTRA_CA must be a file of certificates, PEM: ${file} has none`,
  )
  expect(() => read(one.replace('MII', 'AAA'))).toThrow("PAWS_EGRESS_EXTRA_CA can't be read as certificates, PEM")
  rmSync(folder, { recursive: true })
  expect(() => readConfig({ ...least, PAWS_EGRESS_EXTRA_CA: file })).toThrow("PAWS_EGRESS_EXTRA_CA can't be read")
})
