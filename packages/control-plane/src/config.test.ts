import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { rootCertificates } from 'node:tls'
import { expect, test } from 'vitest'
import { readConfig } from './config.ts'

const least = { DATABASE_URL: 'postgres://paws@localhost/paws' }

test('only the database must be set', () => {
  expect(readConfig(least)).toMatchObject({ host: '127.0.0.1', port: 8080, leaseMs: 150_000, queueLimit: 10_000 })
})

test('an empty variable is an unset one, and blobs stand in the data folder unless elsewhere', () => {
  expect(readConfig({ ...least, PORT: '', PAWS_DATA: '/data' })).toMatchObject({ port: 8080, blobs: '/data/blobs' })
  expect(readConfig({ ...least, PORT: '0', PAWS_BLOBS: 's3://bucket' })).toMatchObject({
    port: 0,
    blobs: 's3://bucket',
  })
})

test('an error names every variable that is wrong, and how', () => {
  const read = () => readConfig({ PORT: '70000', PAWS_DELIVERY_ALLOW: '127.0.0.0/8, home', PAWS_LOG_LEVEL: 'loud' })
  expect(read).toThrow('DATABASE_URL is not set: it must be a URL like postgres://')
  expect(read).toThrow('PORT must be a whole number from 0 to 65535')
  expect(read).toThrow('PAWS_DELIVERY_ALLOW must be a list like 127.0.0.0/8,::1/128; "home" is not a range')
  expect(read).toThrow('PAWS_LOG_LEVEL')
})

test('a lease that a restart would outlast needs a setting that says so', () => {
  expect(() => readConfig({ ...least, PAWS_LEASE_MS: '120000' })).toThrow('PAWS_LEASE_MS must be more than 120000')
  expect(readConfig({ ...least, PAWS_LEASE_MS: '2000', PAWS_UNSAFE_SHORT_LEASES: '1' }).leaseMs).toBe(2000)
})

test("certificates of the operator's own come in a file, which must be there and hold some", () => {
  const folder = mkdtempSync(join(tmpdir(), 'paws-config-'))
  const file = join(folder, 'ca.pem')
  const [one = '', two = ''] = rootCertificates
  const read = (text: string) => {
    writeFileSync(file, text)
    return readConfig({ ...least, PAWS_EGRESS_EXTRA_CA: file }).extraCa
  }
  expect(readConfig(least).extraCa).toEqual([])
  expect(read(`# ours\n${one}\nand\n${two}`)).toEqual([one, two])
  expect(() => read('no certificate')).toThrow(
    `PAWS_EGRESS_EXTRA_CA must be a file of certificates, PEM: ${file} has none`,
  )
  expect(() => read(one.replace('MII', 'AAA'))).toThrow("PAWS_EGRESS_EXTRA_CA can't be read as certificates, PEM")
  rmSync(folder, { recursive: true })
  expect(() => readConfig({ ...least, PAWS_EGRESS_EXTRA_CA: file })).toThrow(
    `PAWS_EGRESS_EXTRA_CA can't be read as certificates, PEM: ENOENT: no such file or directory, open '${file}'`,
  )
})
