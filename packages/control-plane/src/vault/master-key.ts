import { randomBytes } from 'node:crypto'
import { chmod, link, mkdir, readFile, stat, unlink, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'

const keyBytes = 32

/**
 * The key that wraps all others: from the environment (32 bytes as base64 or hex), or from a file made at first start.
 *
 * @throws when the key isn't 32 bytes long, or others may read its file
 */
export async function loadMasterKey(options: { value?: string | undefined; file: string }): Promise<Buffer> {
  if (options.value !== undefined) return parse(options.value, 'PAWS_MASTER_KEY')
  await createOnce(options.file)
  const { mode } = await stat(options.file)
  if ((mode & 0o077) !== 0) {
    throw new Error(
      `Others can read the master key ${options.file}: run chmod 600 on it, and think whom it has been shown to`,
    )
  }
  return parse(await readFile(options.file, 'utf8'), options.file)
}

function parse(text: string, source: string): Buffer {
  const trimmed = text.trim()
  const key = /^[0-9a-f]{64}$/i.test(trimmed) ? Buffer.from(trimmed, 'hex') : Buffer.from(trimmed, 'base64')
  if (key.length !== keyBytes) throw new Error(`${source} must hold 32 bytes as base64 or hex`)
  return key
}

// Written whole under another name and then linked: two that start together agree on the first one's key.
async function createOnce(file: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true })
  const own = `${file}.${process.pid}.${randomBytes(4).toString('hex')}`
  try {
    await stat(file)
    return
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  await writeFile(own, `${randomBytes(keyBytes).toString('base64')}\n`, { mode: 0o600, flush: true })
  await chmod(own, 0o600)
  try {
    await link(own, file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  } finally {
    await unlink(own)
  }
}
