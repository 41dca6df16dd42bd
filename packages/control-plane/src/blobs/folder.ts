import { randomUUID } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { access, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { type Blobs, checkKey, measure } from './blobs.ts'

/** Files half written by a process that died are removed once they are this old. */
const abandonedMs = 24 * 3600_000

/** Blobs as files of a folder. A file appears under its name only when all of it is on the disk. */
export async function openFolder(directory: string): Promise<Blobs> {
  const incoming = join(directory, '.incoming')
  await mkdir(incoming, { recursive: true, mode: 0o700 })
  await removeAbandoned(incoming)
  const fileOf = (key: string) => {
    checkKey(key)
    return join(directory, key)
  }
  return {
    async put(key, content, { sha256 } = {}) {
      const file = fileOf(key)
      const temporary = join(incoming, randomUUID())
      const { through, stored } = measure(key, sha256)
      try {
        await pipeline(content, through, createWriteStream(temporary, { mode: 0o600, flush: true }))
        await mkdir(dirname(file), { recursive: true, mode: 0o700 })
        await rename(temporary, file)
      } finally {
        await rm(temporary, { force: true })
      }
      // The name is as durable as the bytes only once the folders that hold it are written.
      for (let at = dirname(file); at.length >= directory.length; at = dirname(at)) await syncFolder(at)
      return stored()
    },
    async get(key) {
      const handle = await open(fileOf(key)).catch(absent)
      if (!handle) return undefined
      const { size } = await handle.stat()
      return { size, content: handle.createReadStream() }
    },
    async has(key) {
      const there = await access(fileOf(key)).then(() => true, absent)
      return there ?? false
    },
    async delete(key) {
      await rm(fileOf(key), { force: true })
    },
    close: () => undefined,
  }
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT' && error.code !== 'ENOTDIR') throw error
}

async function syncFolder(directory: string): Promise<void> {
  const handle = await open(directory)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function removeAbandoned(incoming: string): Promise<void> {
  for (const name of await readdir(incoming)) {
    const found = await stat(join(incoming, name)).catch(absent)
    if (found && Date.now() - found.mtimeMs > abandonedMs) await rm(join(incoming, name), { force: true })
  }
}
