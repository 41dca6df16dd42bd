import { type ChildProcess, spawn } from 'node:child_process'
import { type FileHandle, open } from 'node:fs/promises'
import type { Duplex } from 'node:stream'
import { type Conversation, converse } from './conversation.ts'
import type { IdMap } from './id-map.ts'

/** A running slot helper, or what it has become. */
export interface Helper {
  pid: number
  talk: Conversation
  /** Of the user namespace that owns its network, and of that; whoever has them closes them */
  namespaces: { user: FileHandle; net: FileHandle }
  /** The other end of the guest agent's descriptor */
  stream: Duplex
  /** Resolves when the process has ended, with what it said of that */
  ended: Promise<string>
}

const MOST_SAID = 4096

/** Starts paws-slot and gives the user namespace that it makes first its ids. */
export async function startHelper(program: string, args: string[], ids: IdMap, cwd: string): Promise<Helper> {
  const child = spawn(program, args, {
    cwd,
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    // A Ctrl-C at the worker's terminal is the worker's to answer.
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'],
  })
  const ended = watch(child)
  const control = child.stdio[3] as Duplex
  const stream = child.stdio[4] as Duplex
  // Both break when the process ends; `ended` tells of that.
  control.on('error', () => undefined)
  stream.on('error', () => undefined)
  const talk = converse(control, async () => new Error(`${program} failed: ${await ended}`))
  const pid = Number(await talk.hear('map'))
  // While the helper waits, the number is surely its own.
  const namespaces = await openNamespaces(pid)
  try {
    await ids.write(pid)
  } catch (error) {
    await closeNamespaces(namespaces)
    throw error
  }
  talk.answer('\n')
  return { pid, talk, namespaces, stream, ended }
}

async function openNamespaces(pid: number): Promise<Helper['namespaces']> {
  const user = await open(`/proc/${pid}/ns/user`)
  try {
    return { user, net: await open(`/proc/${pid}/ns/net`) }
  } catch (error) {
    await user.close()
    throw error
  }
}

export async function closeNamespaces({ user, net }: Helper['namespaces']): Promise<void> {
  await Promise.all([user.close(), net.close()])
}

async function watch(child: ChildProcess): Promise<string> {
  let said = ''
  const { stderr } = child
  stderr?.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-MOST_SAID)
  })
  const silence = new Promise((resolve) => stderr?.once('close', resolve))
  const end = await new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`))
  })
  await silence
  return said.trim() || end
}
