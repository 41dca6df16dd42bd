import { type ChildProcess, spawn } from 'node:child_process'
import { chmod, readdir, rm } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import type { Duplex, Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { IdMap } from './id-map.ts'

/** What is kept of a program's words for the error that says why it failed */
const MOST_SAID = 2000

// The ids are mapped from outside while `read` waits. They and the namespaces die with the worker: --pdeathsig on both.
const BECOME_ROOT = `echo mapped? >&3 && read -r answer <&3 && exec 3>&- &&
 exec setpriv --reuid 0 --regid 0 --clear-groups --pdeathsig KILL -- "$@"`
const NAMESPACES = ['--user', '--mount', '--pid', '--ipc', '--fork', '--kill-child', '--keep-caps']

export interface RangeOptions {
  /** Working directory; folders above it need not be passable for the range */
  cwd: string
  env?: Record<string, string>
  /** Kills the program and all its children */
  signal?: AbortSignal
  /** What errors call the program; the command's first word unless given */
  name?: string
  /** What the program reads; none unless given. When this breaks off, the program is killed and the error is its own */
  stdin?: Readable
  /** Each line of stdout and stderr */
  onLine?: (line: string) => void
}

/** A program ended otherwise than with exit code 0. */
export class ProgramFailed extends Error {
  override name = 'ProgramFailed'
}

/**
 * Runs a program as root of the sandboxes' ids, in user, mount and process namespaces of its own.
 * To the host it is an unprivileged user, whoever the worker runs as; what it writes belongs to the sandboxes' ids.
 *
 * @throws ProgramFailed with the last that it said
 */
export async function runInRange(map: IdMap, command: string[], options: RangeOptions): Promise<void> {
  options.signal?.throwIfAborted()
  const unshare = ['unshare', ...NAMESPACES, '--', 'sh', '-c', BECOME_ROOT, 'sh', ...command]
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...unshare], {
    cwd: options.cwd,
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8', ...options.env },
    stdio: [options.stdin ? 'pipe' : 'ignore', 'pipe', 'pipe', 'pipe'],
  })
  let said = ''
  const lines = [child.stdout, child.stderr].map(async (stream) => {
    if (!stream) return
    for await (const text of createInterface({ input: stream })) {
      // Logs and reasons go into JSON and a database that take no NUL.
      const line = text.replaceAll('\0', '')
      said = `${said}${line}\n`.slice(-MOST_SAID)
      options.onLine?.(line)
    }
  })
  const kill = () => child.kill('SIGKILL')
  options.signal?.addEventListener('abort', kill)
  try {
    const ended = endOf(child)
    await answerMap(child, map)
    const fed = options.stdin && feed(options.stdin, child)
    const end = await ended
    await Promise.all(lines)
    options.signal?.throwIfAborted()
    const broken = await fed
    if (broken) throw broken
    if (end !== 0)
      throw new ProgramFailed(`${options.name ?? command[0]} failed (${end}): ${said.trim() || 'it said nothing'}`)
  } finally {
    options.signal?.removeEventListener('abort', kill)
    kill()
  }
}

/** @returns why its input broke off, where that is not the program's own doing */
async function feed(source: Readable, child: ChildProcess): Promise<Error | undefined> {
  const stdin = child.stdin as Writable
  let broken: Error | undefined
  // A program that reads no further ends, and its end says why.
  let refused = false
  for (const end of ['error', 'close']) {
    stdin.once(end, () => {
      refused = true
    })
  }
  source.once('error', (error) => {
    if (!refused) broken = error
  })
  await pipeline(source, stdin).catch(() => undefined)
  if (broken) child.kill('SIGKILL')
  return broken
}

/** Exit code, or what else ended it; never rejects. */
function endOf(child: ChildProcess): Promise<number | string> {
  return new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'no exit code'))
  })
}

/** Returns also when the program ends before it asks; then its end says why. */
async function answerMap(child: ChildProcess, map: IdMap): Promise<void> {
  const talk = child.stdio[3] as Duplex
  // It breaks when the program dies; its end tells of that.
  talk.on('error', () => undefined)
  const asked = await new Promise<boolean>((resolve) => {
    talk.once('data', () => resolve(true))
    talk.once('close', () => resolve(false))
    child.once('error', () => resolve(false))
  })
  if (!asked || child.pid === undefined) return
  await map.write(child.pid)
  talk.write('\n')
}

/** Lets the range's root make files in a folder of the worker; only folders with a name that nobody can guess. */
export const openToRange = (directory: string) => chmod(directory, 0o777)
export const closeToRange = (directory: string) => chmod(directory, 0o711)

/** Removes a folder of the worker with whatever in it belongs to the range. */
export async function removeTree(map: IdMap, directory: string): Promise<void> {
  if (process.getuid?.() !== 0) {
    await openToRange(directory)
    const names = (await readdir(directory)).map((name) => `./${name}`)
    // What belongs to the worker itself the range can't remove; that is done below, and fails if anything else is left.
    await runInRange(map, ['rm', '-rf', '--', ...names], { cwd: directory }).catch((error) => {
      if (!(error instanceof ProgramFailed)) throw error
    })
  }
  await rm(directory, { recursive: true, force: true })
}
