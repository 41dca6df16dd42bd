import { type ChildProcess, fork, type SendHandle } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Logger } from 'pino'
import type { Handle } from './listeners.ts'
import type { Configure, FromEgress, ToEgress } from './messages.ts'

const program = fileURLToPath(new URL('proxy/main.ts', import.meta.url))
const clone = fileURLToPath(new URL('../../../..', import.meta.url))
/** All that the process may read: sources, ours and those of libraries. */
const sources = ['packages/*', 'node_modules/*', 'package.json'].map((path) => `${clone}${path}`)

const nodeOptions = [
  '--permission',
  ...sources.map((path) => `--allow-fs-read=${path}`),
  // Beyond that something leaks, and a restart costs open connections only.
  '--max-old-space-size=1024',
  // What passes through lies outside of V8's heap. Young garbage holds on to it: with the usual 16 MB of that, a third of
  // a large answer's time goes to collecting all that is old as well.
  '--max-semi-space-size=4',
  '--disable-warning=ExperimentalWarning',
]

/** What a process is asked takes a millisecond; one that hangs serves nobody. */
const patienceMs = 30_000

/** It ended; what it was asked is asked of the next one. */
export class EgressEnded extends Error {
  override name = 'EgressEnded'
}

/** One egress process, from its start to its end. */
export interface EgressProcess {
  readonly pid: number | undefined
  /** Set before `ended` resolves */
  readonly dead: boolean
  readonly ended: Promise<string>
  /** With a handle, our own copy of that is closed; otherwise both processes would take connections from it */
  send(message: ToEgress, handle?: Handle): void
  /** Resolves with the next message of this kind; rejects with EgressEnded */
  answer(isIt: (message: FromEgress) => boolean): Promise<void>
  kill(): void
}

export interface ProcessOptions {
  configure: Configure
  onMessage: (message: FromEgress, from: EgressProcess) => void
  log: Logger
}

/** Starts one; it takes sockets once it has answered `ready`. */
export function startProcess({ configure, onMessage, log }: ProcessOptions): EgressProcess {
  const child = spawnProgram()
  const awaited = new Set<{ isIt: (message: FromEgress) => boolean; resolve: () => void; reject: (e: Error) => void }>()
  /** Our copies of sockets that are on their way: Node sends one at a time, and forgets the others with the process */
  const underWay = new Set<Handle>()
  let dead = false
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`))
  }).then((why) => {
    dead = true
    // As long as one is open nobody else can listen in its place.
    for (const handle of underWay) handle.close()
    underWay.clear()
    for (const { reject } of awaited) reject(new EgressEnded(`The egress process ended: ${why}`))
    awaited.clear()
    return why
  })
  child.on('message', (message) => {
    const heard = message as FromEgress
    for (const one of awaited) {
      if (!one.isIt(heard)) continue
      awaited.delete(one)
      one.resolve()
    }
    onMessage(heard, egress)
  })
  for (const stream of [child.stdout, child.stderr]) {
    if (stream) createInterface({ input: stream }).on('line', (line) => log.warn({ process: 'egress' }, line))
  }

  const egress: EgressProcess = {
    pid: child.pid,
    get dead() {
      return dead
    },
    ended,
    send(message, handle) {
      // That it could not be sent shows by its end.
      const sent = () => {
        if (handle) underWay.delete(handle)
        handle?.close()
      }
      if (handle) underWay.add(handle)
      if (dead || !child.connected) sent()
      else child.send(message, handle as SendHandle | undefined, sent)
    },
    answer(isIt) {
      const answered = new Promise<void>((resolve, reject) => {
        if (dead) return reject(new EgressEnded('The egress process has ended.'))
        const timer = setTimeout(() => {
          log.error('The egress process does not answer, so it is killed')
          egress.kill()
        }, patienceMs).unref()
        const settled = (settle: (error: Error) => void) => (error: Error) => {
          clearTimeout(timer)
          settle(error)
        }
        awaited.add({ isIt, resolve: settled(() => resolve()) as () => void, reject: settled(reject) })
      })
      // Several are asked for at once, and awaited one after the other.
      answered.catch(() => undefined)
      return answered
    },
    kill: () => void child.kill('SIGKILL'),
  }
  egress.send(configure)
  return egress
}

/**
 * It handles hostile bytes and holds secrets: it can open no file but sources, start no program, gain no privilege, and
 * goes when the worker goes. As root it has none of root's capabilities.
 */
function spawnProgram(): ChildProcess {
  const bare = process.getuid?.() === 0 ? ['--bounding-set=-all'] : []
  return fork(program, [], {
    execPath: 'setpriv',
    execArgv: [
      ...['--no-new-privs', '--inh-caps=-all', ...bare, '--pdeathsig', 'KILL', '--', process.execPath],
      ...nodeOptions,
    ],
    cwd: '/',
    // Names are looked up on these threads, and one that hangs holds its thread for long.
    env: { PATH: '/usr/bin:/bin', UV_THREADPOOL_SIZE: '32' },
    detached: true,
    serialization: 'advanced',
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  })
}
