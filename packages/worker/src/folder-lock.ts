import { spawn } from 'node:child_process'
import { join } from 'node:path'

const taken = 75

export interface FolderLock {
  close(): Promise<void>
}

/**
 * Takes a worker's folder for this process alone: a second worker there would take the first one's sandboxes for what
 * a dead worker has left, and end them. A child holds the lock and ends with the pipe from this process, so the kernel
 * gives the folder back however this process ends.
 *
 * @param patienceS seconds to wait for a worker that was just killed to be gone
 * @throws when another worker holds it
 */
export async function lockFolder(dataDir: string, patienceS = 5): Promise<FolderLock> {
  const file = join(dataDir, 'worker.lock')
  const holder = spawn(
    'flock',
    ['--no-fork', '-w', `${patienceS}`, '-E', `${taken}`, file, 'sh', '-c', 'echo held; exec cat'],
    // Not in the terminal's process group: Ctrl-C must not free the folder before all is stopped.
    { detached: true, stdio: ['pipe', 'pipe', 'inherit'] },
  )
  const ended = new Promise<number | null>((done, failed) => holder.once('exit', done).once('error', failed))
  const held = new Promise<'held'>((done) => holder.stdout.once('data', () => done('held')))
  const outcome = await Promise.race([held, ended])
  if (outcome === taken) {
    throw new Error(`A worker already runs on ${dataDir}. Stop that one, or choose another folder by PAWS_DATA.`)
  }
  if (outcome !== 'held') throw new Error(`${dataDir} could not be locked: flock ended with ${outcome}.`)
  return {
    async close() {
      holder.stdin.end()
      await ended
    },
  }
}
