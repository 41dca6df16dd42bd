import { spawn } from 'node:child_process'
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { writePrivately } from '../private-file.ts'
import type { ProcessMark } from './leftovers.ts'

/** What the holder of a data folder says about itself. */
export interface Holder {
  pid: number
  url: string
  /** What it has started */
  children: ProcessMark[]
}

export interface FolderLock {
  /** What the last holder said and didn't take back: it was killed */
  before: Holder | undefined
  announce(holder: Holder): Promise<void>
  release(): Promise<void>
}

const taken = 75

/**
 * Takes a data folder for this process alone. A child holds the lock and ends with the pipe from this process, so the
 * kernel gives the folder back however this process ends: there is no stale lock to clean up.
 *
 * @throws when another `up` holds it, naming its process and URL
 */
export async function lockFolder(dataDir: string): Promise<FolderLock> {
  const about = join(dataDir, 'up.json')
  const holder = spawn(
    'flock',
    ['--no-fork', '-n', '-E', `${taken}`, join(dataDir, 'up.lock'), 'sh', '-c', 'echo held; exec cat'],
    // Not in the terminal's process group: Ctrl-C must not free the folder before all is stopped.
    { detached: true, stdio: ['pipe', 'pipe', 'inherit'] },
  )
  const ended = new Promise<{ code: number | null }>((done, failed) => {
    holder.once('exit', (code) => done({ code })).once('error', failed)
  })
  const held = new Promise<'held'>((done) => holder.stdout.once('data', () => done('held')))
  const outcome = await Promise.race([held, ended])
  const before = await readHolder(about)
  if (outcome !== 'held') {
    if (outcome.code !== taken) throw new Error(`${dataDir} could not be locked: flock ended with ${outcome.code}.`)
    const who = before ? `(pid ${before.pid}, ${before.url})` : 'by a process that is just starting'
    throw new Error(
      `paws already runs on ${dataDir} ${who}. Use that one, stop it, or choose another folder by PAWS_DATA.`,
    )
  }
  return {
    before,
    async announce(self) {
      await writePrivately(about, `${JSON.stringify(self)}\n`)
    },
    async release() {
      await rm(about, { force: true })
      holder.stdin.end()
      await ended
    },
  }
}

// Replaced by rename only, so what is there is whole.
async function readHolder(about: string): Promise<Holder | undefined> {
  const text = await readFile(about, 'utf8').catch(() => undefined)
  return text === undefined ? undefined : (JSON.parse(text) as Holder)
}
