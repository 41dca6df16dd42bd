import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import S3rver from 's3rver'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Blobs, openBlobs, WrongDigest } from './index.ts'
import { readS3Location } from './s3.ts'

let root: string
let s3: S3rver
const opened: Partial<Record<'folder' | 's3', Blobs>> = {}

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'paws-blobs-'))
  s3 = new S3rver({
    address: '127.0.0.1',
    port: 0,
    silent: true,
    directory: join(root, 's3'),
    configureBuckets: [{ name: 'paws', configs: [] }],
  })
  const { port } = await s3.run()
  process.env.AWS_ACCESS_KEY_ID = process.env.AWS_SECRET_ACCESS_KEY = 'S3RVER'
  opened.folder = await openBlobs({ blobs: join(root, 'folder') })
  opened.s3 = await openBlobs({
    blobs: `s3://paws/some/prefix?endpoint=http://127.0.0.1:${port}&region=eu-west-1&forcePathStyle=true`,
  })
})
afterAll(async () => {
  opened.folder?.close()
  opened.s3?.close()
  await s3.close()
  await rm(root, { recursive: true })
})

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const key = () => `tests/${randomUUID()}/file.bin`

describe.each(['folder', 's3'] as const)('%s', (kind) => {
  const blobs = () => opened[kind] as Blobs
  const read = async (name: string) => {
    const blob = await blobs().get(name)
    return blob && { size: blob.size, bytes: await buffer(blob.content) }
  }

  test.each([0, 1, 70_000, 40 * 1024 * 1024])('keeps %i bytes as they are', async (size) => {
    const bytes = randomBytes(size)
    const name = key()
    expect(await blobs().has(name)).toBe(false)
    const pieces = (function* () {
      for (let at = 0; at < size; at += 65_536) yield bytes.subarray(at, at + 65_536)
    })()
    expect(await blobs().put(name, Readable.from(pieces, { objectMode: false }), { sha256: sha256(bytes) })).toEqual({
      sizeBytes: size,
      sha256: sha256(bytes),
    })
    expect(await blobs().has(name)).toBe(true)
    const found = await read(name)
    expect(found?.size).toBe(size)
    expect(found?.bytes.equals(bytes)).toBe(true)
  })

  test('replaces what was there, and deletes, also what is not there', async () => {
    const name = key()
    await blobs().put(name, Readable.from([Buffer.from('one')]))
    await blobs().put(name, Readable.from([Buffer.from('two')]))
    expect((await read(name))?.bytes.toString()).toBe('two')
    await blobs().delete(name)
    await blobs().delete(name)
    expect(await blobs().get(name)).toBeUndefined()
    expect(await blobs().has(name)).toBe(false)
  })

  test('another digest than announced is refused naming both, and nothing is stored', async () => {
    for (const size of [100, 20 * 1024 * 1024]) {
      const bytes = randomBytes(size)
      const expected = sha256(Buffer.from('something else'))
      const name = key()
      const refused = await blobs()
        .put(name, Readable.from([bytes]), { sha256: expected })
        .catch((error: unknown) => error)
      expect(refused).toBeInstanceOf(WrongDigest)
      expect(refused).toMatchObject({ expected, found: sha256(bytes) })
      expect(String(refused)).toContain(expected)
      expect(String(refused)).toContain(sha256(bytes))
      expect(await blobs().has(name)).toBe(false)
    }
  })

  test('a source that breaks off leaves what was there before', async () => {
    const name = key()
    await blobs().put(name, Readable.from([Buffer.from('good')]))
    const broken = Readable.from(
      (async function* () {
        yield randomBytes(20 * 1024 * 1024)
        throw new Error('the wire was cut')
      })(),
    )
    await expect(blobs().put(name, broken)).rejects.toThrow('the wire was cut')
    expect((await read(name))?.bytes.toString()).toBe('good')
  })

  test('holds a source back instead of buffering it', async () => {
    let made = 0
    const source = Readable.from(
      (function* () {
        for (; made < 2000; made++) yield randomBytes(65_536)
      })(),
      { objectMode: false },
    )
    const before = process.memoryUsage().rss
    await blobs().put(key(), source)
    expect(made).toBe(2000)
    // 131 MB went through; S3 may hold two parts and their copies.
    expect(process.memoryUsage().rss - before).toBeLessThan(110 * 1024 * 1024)
  })

  test.each(['../x', 'a/../../x', '/etc/passwd', 'a//b', 'a/.hidden', '', 'a\0b', 'x'.repeat(501)])(
    'no key leads out of it: %j',
    async (name) => {
      await expect(blobs().put(name, Readable.from([]))).rejects.toThrow("can't be the key of a blob")
      await expect(blobs().get(name)).rejects.toThrow("can't be the key of a blob")
    },
  )
})

test('nothing half written stays in the folder', async () => {
  expect(await readdir(join(root, 'folder/.incoming'))).toEqual([])
})

test.each([
  ['s3://paws?colour=red', 'the setting "colour"'],
  ['s3://key:secret@paws', 'must hold no credentials'],
  ['s3:///prefix', 'names no bucket'],
])('a wrong location is refused with the reason: %s', (location, reason) => {
  expect(() => readS3Location(location)).toThrow(reason)
})

test('a missing bucket is an error and no missing blob', async () => {
  const other = new S3rver({ address: '127.0.0.1', port: 0, silent: true, directory: join(root, 'other') })
  const { port } = await other.run()
  const blobs = await openBlobs({ blobs: `s3://nowhere?endpoint=http://127.0.0.1:${port}&forcePathStyle=true` })
  await expect(blobs.get('a')).rejects.toThrow(/bucket/i)
  blobs.close()
  await other.close()
})
