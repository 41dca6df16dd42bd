import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createProcessDriver } from './process.ts'
import { guestBinary } from './testing/build-program.ts'

test('a host that can make no slot gets no driver, and is told why', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'paws-process-'))
  const outlets = { open: () => Promise.reject(new Error('It comes to no network')) }
  const options = { outlets, dataDir, instance: 'none', slots: 1, diskMB: 256, log: { warn: () => undefined } }
  const driver = createProcessDriver({ ...options, guestAgent: await guestBinary(), slotHelper: '/bin/false' })
  await expect(driver).rejects.toThrow('This host makes no sandbox: /bin/false failed')
  expect(await readdir(join(dataDir, 'slots'))).toEqual([])
  await rm(dataDir, { recursive: true })
})
