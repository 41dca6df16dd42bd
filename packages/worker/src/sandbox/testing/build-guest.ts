import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { access, mkdir, readdir, readFile } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const sources = join(import.meta.dirname, '../../../../../guest')

/** Path of a guest agent built from this tree; built once for each state of its sources, and shared by all suites. */
export async function guestBinary(): Promise<string> {
  const hash = createHash('sha256')
  for (const name of (await readdir(sources)).sort()) {
    if (/\.(c|h|sh)$/.test(name)) hash.update(name).update(await readFile(join(sources, name)))
  }
  const folder = join(tmpdir(), `paws-guest-${userInfo().uid}`)
  const binary = join(folder, hash.digest('hex').slice(0, 16))
  const built = await access(binary).then(
    () => true,
    () => false,
  )
  if (!built) {
    await mkdir(folder, { recursive: true, mode: 0o755 })
    await promisify(execFile)(join(sources, 'build.sh'), [binary])
  }
  return binary
}
