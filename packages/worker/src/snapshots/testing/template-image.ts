import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { openEgress } from '../../egress/index.ts'
import type { Outlets } from '../../sandbox/outlet.ts'
import { createProcessDriver } from '../../sandbox/process.ts'
import { guestBinary, slotHelperBinary } from '../../sandbox/testing/build-program.ts'
import { buildSnapshot, type HeldSnapshot, openSnapshotStore } from '../index.ts'
import { readTemplate } from '../making/template.ts'
import { lock, minimalImage, templatesDir } from './minimal-image.ts'

const log = pino({ level: 'silent' })

/** A built-in template, built for real in sandboxes, once a machine and state of its setup and what it comes from. */
export async function templateImage(id: string): Promise<HeldSnapshot> {
  const { manifest } = await readTemplate(templatesDir, id)
  if ('suite' in manifest.from) return minimalImage()
  const base = await templateImage(manifest.from.template)
  const dataDir = join(tmpdir(), `paws-${id}-${await contentHash(id, base.digest)}`)
  await mkdir(dataDir, { recursive: true, mode: 0o711 })
  const unlock = await lock(join(dataDir, 'lock'))
  try {
    const store = await openSnapshotStore({
      dataDir,
      log,
      fetchFile: async (_, file) => createReadStream(join(base.squashfs, '..', file)),
    })
    const held = (await store.held()).filter((digest) => digest !== base.digest)
    if (held[0]) return await store.ensure(held[0])
    await using driver = await openBuilder(dataDir)
    const order = { snapshotId: id, template: id, config: null, base }
    const said: string[] = []
    const onLine = (line: string) => void said.push(line)
    return await buildSnapshot({ store, driver, templatesDir, order, onProgress: () => undefined, onLine, log }).catch(
      (cause: Error) => {
        throw new Error(`${id} was not built: ${cause.message}\n${said.slice(-50).join('\n')}`, { cause })
      },
    )
  } finally {
    unlock()
  }
}

/** A driver, by default with a real way out of its sandboxes. */
export async function openBuilder(dataDir: string, outlets?: Outlets) {
  const slotHelper = await slotHelperBinary()
  const egress = outlets ? undefined : await openEgress({ slotHelper, log })
  const driver = await createProcessDriver({
    ...{ dataDir, guestAgent: await guestBinary(), slotHelper },
    ...{ instance: `build-${process.pid}`, slots: 1, diskMB: 512, log },
    outlets: outlets ?? (egress as Outlets),
  })
  const close = async () => {
    await driver.close()
    await egress?.close()
  }
  return { ...driver, close, [Symbol.asyncDispose]: close }
}

// Of what decides how an image turns out, so that other work on this room doesn't build it again.
async function contentHash(id: string, base: string): Promise<string> {
  const builder = join(import.meta.dirname, '../making')
  const { sha256 } = await readTemplate(templatesDir, id)
  const hash = createHash('sha256').update(`${base} ${sha256}`)
  for (const file of ['clean.sh', 'clean.ts', 'extract.ts']) hash.update(await readFile(join(builder, file)))
  return hash.digest('hex').slice(0, 16)
}
