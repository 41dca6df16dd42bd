import { spawn } from 'node:child_process'
import { closeSync, constants, fstatSync, lstatSync, openSync, readSync } from 'node:fs'
import { open, readdir, readFile, readlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import type { CliConfig } from '../../config.ts'
import { foldersOf } from '../../up/services.ts'
import { allForms, textForms } from '../forms.ts'
import { messageOf, type Note, type PlaceKind, type Subject, textItem } from '../place.ts'
import type { Item } from '../search.ts'
import { filesInside, procInside } from './inside.ts'

/** Most of one process's memory that is looked through */
const memoryBytes = 512 * 1024 * 1024
/** Read at once */
const pieceBytes = 1024 * 1024

export const proc: PlaceKind = {
  what: '/proc: every process of the installation; inside of sandboxes their memory too',
  when: ['running'],
  holds: textForms,
  async *items(subject, note) {
    yield* procInside(subject)
    yield* processes(subject, note)
  },
}

export const files: PlaceKind = {
  what: "the sandbox's files from inside; the whole data folder, disks of sandboxes included; temporary files",
  when: ['running', 'ended'],
  holds: allForms,
  async *items(subject, note) {
    // Once it has ended there is no sandbox, and its disk must be gone.
    if (await isRunning(subject)) yield* filesInside(subject)
    yield* tree(subject.config.dataDir, note, snapshotFolders(subject.config))
    yield* changedSince(tmpdir(), subject.began, note)
  },
}

export const logs: PlaceKind = {
  what: 'what the services have logged',
  when: ['running', 'ended'],
  holds: textForms,
  async *items({ config }, note) {
    for await (const item of tree(foldersOf(config.dataDir).logs, note)) yield { ...item, text: true }
  },
}

/** Where snapshots lie, which are a place of their own. */
export function snapshotFolders({ dataDir }: CliConfig): string[] {
  return [join(foldersOf(dataDir).worker, 'snapshots'), join(foldersOf(dataDir).controlPlane, 'blobs', 'snapshots')]
}

async function isRunning({ client, sessionId }: Subject): Promise<boolean> {
  return (await client.sessions.get(sessionId)).status === 'running'
}

/** Every regular file below a folder, but for those in folders that are left out. Links are not followed. */
export async function* tree(folder: string, note: Note, leftOut: string[] = []): AsyncGenerator<Item> {
  if (leftOut.includes(folder)) return
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') note(`${folder}: ${error.message}`)
    return []
  })
  for (const entry of entries) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) yield* tree(path, note, leftOut)
    else if (entry.isFile()) yield fileItem(path, note)
  }
}

function fileItem(path: string, note: Note): Item {
  return { where: path, read: () => bytesOf(path, note) }
}

async function* bytesOf(path: string, note: Note): AsyncGenerator<Buffer> {
  try {
    const { size, blocks } = lstatSync(path)
    // A sandbox's disk is mostly holes, and reading those would take minutes. tar leaves them out.
    if (size > 64 * 1024 * 1024 && blocks * 512 < size / 2) yield* withoutHoles(path)
    else yield* piecesOf(path)
  } catch (error) {
    // What is temporary goes while one looks.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') note(`${path}: ${messageOf(error)}`)
  }
}

// Nothing else is done meanwhile, and of ten thousands of small files most of the time would be spent on waiting.
function* piecesOf(path: string): Generator<Buffer> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
  const file = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  try {
    const { size } = fstatSync(file)
    // One byte more than there is tells the end; what the kernel makes up says that it has none.
    const length = Math.min(size + 1, pieceBytes)
    for (;;) {
      const piece = Buffer.allocUnsafe(length)
      const got = readSync(file, piece)
      if (got > 0) yield piece.subarray(0, got)
      if (got < length) return
    }
  } finally {
    closeSync(file)
  }
}

function withoutHoles(path: string): AsyncGenerator<Buffer> {
  return outputOf('tar', ['--create', '--sparse', '--file=-', `--directory=${dirname(path)}`, '--', basename(path)])
}

/** What a program writes to its stdout. */
export async function* outputOf(program: string, args: string[]): AsyncGenerator<Buffer> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'ignore'] })
  const ended = new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
  // It is awaited only after the output, and may fail before that.
  ended.catch(() => undefined)
  try {
    yield* child.stdout
    await ended
  } finally {
    child.kill()
  }
}

/** Files below a folder that were made or changed since then. */
async function* changedSince(folder: string, since: Date, note: Note): AsyncGenerator<Item> {
  const at = `@${Math.floor(since.getTime() / 1000)}`
  let rest = ''
  for await (const bytes of outputOf('find', [folder, '-xdev', '-type', 'f', '-newerct', at, '-print0'])) {
    const paths = `${rest}${bytes}`.split('\0')
    rest = paths.pop() ?? ''
    for (const path of paths) yield fileItem(path, note)
  }
}

/** What the kernel shows of each process that the installation has started, as seen from the host. */
async function* processes({ config }: Subject, note: Note): AsyncGenerator<Item> {
  const announced = await readFile(join(config.dataDir, 'up.json'), 'utf8').catch(() => undefined)
  if (announced === undefined) return note(`No "paws up" runs on ${config.dataDir}: its processes were not looked at`)
  const { pid: root } = JSON.parse(announced) as { pid: number }
  const own = await readlink(`/proc/${root}/ns/pid`).catch(() => '')
  let closed = 0
  for (const pid of await descendants(root)) {
    const namespace = await readlink(`/proc/${pid}/ns/pid`).catch(() => undefined)
    const shown = await Promise.all(
      ['environ', 'cmdline', 'comm', 'maps'].map((name) => readFile(`/proc/${pid}/${name}`)),
    )
      .then(Buffer.concat)
      .catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'EACCES' || error.code === 'EPERM') closed++
        return Buffer.alloc(0) // Closed to us, which is counted, or ended meanwhile
      })
    yield textItem(`process ${pid}`, Buffer.concat([shown, Buffer.from(await descriptorsOf(pid))]))
    // The services' own memory holds secrets, of course. A sandbox's must not.
    if (namespace && namespace !== own) yield { where: `memory of process ${pid}`, read: () => memoryOf(pid) }
  }
  if (closed > 0) note(`${closed} processes are closed to this user: as root all are looked at`)
}

async function descendants(ancestor: number): Promise<number[]> {
  const children = new Map<number, number[]>()
  for (const pid of (await readdir('/proc')).map(Number).filter(Boolean)) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '') // It has ended meanwhile
    const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
    children.set(parent, [...(children.get(parent) ?? []), pid])
  }
  const below = (pid: number): number[] => (children.get(pid) ?? []).flatMap((child) => [child, ...below(child)])
  return [ancestor, ...below(ancestor)]
}

async function descriptorsOf(pid: number): Promise<string> {
  const names = await readdir(`/proc/${pid}/fd`).catch(() => []) // It has ended, or is closed to us
  const targets = await Promise.all(names.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => '')))
  return targets.join('\n')
}

/** What a process could have put somewhere: its writable memory. */
async function* memoryOf(pid: number): AsyncGenerator<Buffer> {
  const maps = await readFile(`/proc/${pid}/maps`, 'utf8').catch(() => '') // It has ended, or is closed to us
  const memory = await open(`/proc/${pid}/mem`).catch(() => undefined)
  if (!memory) return
  let left = memoryBytes
  try {
    for (const [, from = '', to = ''] of maps.matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw/gm)) {
      const [start, end] = [Number.parseInt(from, 16), Number.parseInt(to, 16)]
      for (let at = start; at < end && left > 0; at += 1024 * 1024) {
        const length = Math.min(1024 * 1024, end - at)
        const piece = await memory.read(Buffer.alloc(length), 0, length, at).catch(() => undefined) // Not really there
        if (!piece) break
        left -= piece.bytesRead
        yield piece.buffer.subarray(0, piece.bytesRead)
      }
    }
  } finally {
    await memory.close()
  }
}
