import { spawn } from 'node:child_process'
import type { NetworkNamespaces } from '../sandbox/outlet.ts'
import type { Listen } from './messages.ts'

/** A socket as Node holds it before anybody serves it: it takes no connection until then. */
export interface Handle {
  close(): void
}

export interface Listener {
  what: Listen['what']
  handle: Handle
}

/** http, https, and names by TCP and UDP; the slot helper makes one of each. */
const expected = 4
const MOST_SAID = 1000

/**
 * Opens the sockets that answer what a sandbox dials, in its network.
 * The slot helper enters there and hands them over; a process of Node's would take longer to start than a slot to make.
 *
 * @throws with what the helper said
 */
export async function openListeners(helper: string, { user, net }: NetworkNamespaces): Promise<Listener[]> {
  const child = spawn(helper, ['--listen'], {
    env: {},
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe', user, net, 'ipc'],
    serialization: 'json',
  })
  const listeners: Listener[] = []
  let said = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-MOST_SAID)
  })
  child.on('message', (message, handle) => {
    listeners.push({ what: (message as { what: Listen['what'] }).what, handle: handle as unknown as Handle })
  })
  const end = await new Promise<string | number>((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'no exit code'))
  })
  if (end === 0 && listeners.length === expected) return listeners
  closeAll(listeners)
  throw new Error(`No listeners could be opened for a sandbox: ${said.trim() || `${helper} ended with ${end}`}`)
}

export function closeAll(listeners: Listener[]): void {
  for (const { handle } of listeners) handle.close()
}
