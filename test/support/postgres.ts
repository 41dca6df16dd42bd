import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startPostgres } from '../../packages/cli/src/up/postgres.ts'

/**
 * A real server of a test's own, on memory where the machine has it: as durable as ever against kill -9, and fast.
 *
 * @returns its URL; `stop` ends it and removes its folder
 */
export async function temporaryPostgres(): Promise<{
  url: string
  pid: number
  dataDir: string
  stop(): Promise<void>
}> {
  const dataDir = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'paws-pg-'))
  const { url, pid, stop } = await startPostgres({ dataDir })
  return {
    url,
    pid,
    dataDir,
    async stop() {
      await stop()
      await rm(dataDir, { recursive: true, force: true })
    },
  }
}
