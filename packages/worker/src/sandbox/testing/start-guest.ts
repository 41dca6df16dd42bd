import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { guestBinary } from './build-program.ts'

export interface StartedGuest {
  /** The host's end of the agent's stream */
  stream: Duplex
  process: ChildProcess
  /** How the agent ended, and what it said */
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null; stderr: string }>
}

/**
 * Runs the real agent as process 1 of a pid namespace, as nobody but its user (so that it can set no clock of ours).
 *
 * @param jail a folder that holds `guest`, a copy of the agent, and becomes its root; without it, it sees our files
 */
export async function startGuest({ jail }: { jail?: string } = {}): Promise<StartedGuest> {
  const binary = await guestBinary()
  const root = jail ? [`--root=${jail}`, '/guest'] : ['--mount-proc', binary]
  const child = spawn(
    'unshare',
    ['--user', '--map-root-user', '--pid', '--fork', '--kill-child', ...root, '--fd', '3'],
    { stdio: ['ignore', 'ignore', 'pipe', 'pipe'] },
  )
  let stderr = ''
  child.stderr?.on('data', (chunk) => {
    stderr += chunk
  })
  const ended = once(child, 'close').then(([code, signal]) => ({ code, signal, stderr }))
  // Node gives a connected socket for what it calls a pipe.
  return { stream: child.stdio[3] as unknown as Duplex, process: child, ended }
}
