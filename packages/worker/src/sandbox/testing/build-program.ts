import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { access, mkdir, readdir, readFile } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const root = join(import.meta.dirname, '../../../../..')

/** Path of a guest agent built from this tree. */
export const guestBinary = () => build('guest', join(root, 'guest'))

/** Path of a slot helper built from this tree. */
export const slotHelperBinary = () => build('slot', join(root, 'packages/worker/slot'))

/** Built once for each state of the sources, and shared by all suites. */
async function build(name: string, sources: string): Promise<string> {
  const hash = createHash('sha256')
  for (const file of (await readdir(sources)).sort()) {
    if (/\.(c|h|sh)$/.test(file)) hash.update(file).update(await readFile(join(sources, file)))
  }
  const folder = join(tmpdir(), `paws-${name}-${userInfo().uid}`)
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
