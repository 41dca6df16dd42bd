import { randomBytes } from 'node:crypto'
import { chmod, link, mkdir, readFile, stat, unlink, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'

const keyBytes = 32

/**
 * The keys that wrap all others: from the environment, or from a file made at first start. Each is 32 bytes as base64
 * or hex; several stand on lines of their own or have commas between them. The first wraps, all open.
 *
 * @throws when a key isn't 32 bytes long, or others may read their file
 */
export async function loadMasterKeys(options: { value?: string | undefined; file: string }): Promise<Buffer[]> {
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

function parse(text: string, source: string): Buffer[] {
  const keys = text
    .split(/[,\s]+/)
    .filter((part) => part !== '')
    .map((part) => (/^[0-9a-f]{64}$/i.test(part) ? Buffer.from(part, 'hex') : Buffer.from(part, 'base64')))
  if (keys.length === 0 || keys.some((key) => key.length !== keyBytes)) {
    throw new Error(`${source} must hold 32 bytes as base64 or hex; several keys stand on lines of their own`)
  }
  return keys
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
