import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readConfig } from '../../packages/cli/src/config.ts'
import { type Installation, up } from '../../packages/cli/src/up/up.ts'

/**
 * A whole paws of its own: what `./paws up` starts, until it is closed. It lives in a folder of its own that goes with
 * it, or in the one given, which stays: its snapshot is then built only once.
 */
export async function startInstallation(env: Record<string, string>, folder?: string) {
  const dataDir = folder ?? (await mkdtemp(join(tmpdir(), 'paws-bench-')))
  // As root, PostgreSQL's user must get through it.
  if (!folder) await chmod(dataDir, 0o711)
  const config = readConfig({ ...process.env, PAWS_KEY: '', PAWS_DATA: dataDir, PORT: '0', ...env })
  const stop = new AbortController()
  const ready = Promise.withResolvers<Installation>()
  const ended = up(config, { onReady: ready.resolve, stop: stop.signal, hurry: new EventTarget() })
  ended.catch(ready.reject)
  const installation = await ready.promise
  return {
    ...installation,
    dataDir,
    async close() {
      stop.abort()
      await ended
      if (!folder) await rm(dataDir, { recursive: true, force: true })
    },
  }
}
