import { createReadStream } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Outcome as OutcomeSchema } from '@paws/api'

export type Outcome = (typeof OutcomeSchema)['_zod']['output']
export type Stream = 'stdout' | 'stderr' | 'egress'

/** A numbered piece of output; `data` is base64, as it travels. */
export interface Chunk {
  n: number
  stream: Stream
  data: string
}

/** Where a chunk lies in its journal. */
export interface Place {
  offset: number
  length: number
}

/**
 * What one session has to report, on disk until the control plane has acknowledged it. A file of lines, only ever
 * added to: the begin, chunks, at last the outcome. A line that a crash cut short doesn't count.
 */
export interface Journal {
  readonly sessionId: string
  readonly fence: number
  /** Milliseconds since 1970 */
  readonly begunAt: number
  append(chunk: Chunk): Promise<Place>
  read(place: Place): Promise<Chunk>
  /** On the disk itself when it resolves: what is reported from here on can't become another outcome by a crash. */
  settle(outcome: Outcome): Promise<void>
  /** The report was acknowledged, or nobody wants it any more. */
  remove(): Promise<void>
  /** Leaves it to the next run. */
  close(): Promise<void>
}

/** A journal that a former run of this worker left. */
export interface Leftover {
  journal: Journal
  chunks: (Place & { n: number })[]
  /** Absent when the worker ended before the session did */
  outcome?: Outcome
}

type Line = { begin: { sessionId: string; fence: number; at: number } } | { chunk: Chunk } | { outcome: Outcome }

export interface Journals {
  begin(sessionId: string, fence: number): Promise<Journal>
  /** What former runs left; each must be reported and removed. */
  leftovers(): Promise<Leftover[]>
}

export async function openJournals(folder: string): Promise<Journals> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  return {
    async begin(sessionId, fence) {
      const path = join(folder, `${sessionId}.${fence}.jsonl`)
      const begin = { sessionId, fence, at: Date.now() }
      // A claim comes once: a file that is already there is a mistake that must not be written over.
      const file = await open(path, 'ax+', 0o600)
      const journal = openJournal(path, file, begin, 0)
      await journal.write({ begin })
      return journal
    },
    async leftovers() {
      const names = (await readdir(folder)).filter((name) => name.endsWith('.jsonl'))
      const found = await Promise.all(names.map((name) => reopen(join(folder, name))))
      return found.filter((leftover) => leftover !== undefined)
    },
  }
}

function openJournal(
  path: string,
  file: FileHandle,
  begin: { sessionId: string; fence: number; at: number },
  end: number,
) {
  let offset = end
  let last: Promise<unknown> = Promise.resolve()

  // One after the other: each line's place is known before it is written.
  function write(line: Line): Promise<Place> {
    const bytes = Buffer.from(`${JSON.stringify(line)}\n`)
    const place = { offset, length: bytes.length }
    offset += bytes.length
    const written = last.then(() => file.appendFile(bytes))
    last = written
    // Whoever waits hears of a failure; the next write fails by itself.
    written.catch(() => undefined)
    return written.then(() => place)
  }

  async function close() {
    // A write that fails now is of no more interest.
    await last.catch(() => undefined)
    await file.close()
  }

  return {
    sessionId: begin.sessionId,
    fence: begin.fence,
    begunAt: begin.at,
    write,
    append: (chunk: Chunk) => write({ chunk }),
    async read({ offset, length }: Place) {
      const { buffer } = await file.read(Buffer.allocUnsafe(length), 0, length, offset)
      return (JSON.parse(String(buffer)) as { chunk: Chunk }).chunk
    },
    async settle(outcome: Outcome) {
      await write({ outcome })
      await file.datasync()
    },
    async remove() {
      await close()
      await rm(path, { force: true })
    },
    close,
  }
}

/** @returns nothing for a file without a whole first line: then no sandbox was started either */
async function reopen(path: string): Promise<Leftover | undefined> {
  let end = 0
  let begin: { sessionId: string; fence: number; at: number } | undefined
  let outcome: Outcome | undefined
  const chunks: (Place & { n: number })[] = []
  for await (const { line, length } of wholeLines(path)) {
    if ('begin' in line) begin = line.begin
    else if ('chunk' in line) chunks.push({ n: line.chunk.n, offset: end, length })
    else outcome = line.outcome
    end += length
  }
  if (!begin) {
    await rm(path, { force: true })
    return undefined
  }
  const file = await open(path, 'a+')
  await file.truncate(end)
  return { journal: openJournal(path, file, begin, end), chunks, outcome }
}

/** Lines up to the first that is no whole one. */
async function* wholeLines(path: string): AsyncGenerator<{ line: Line; length: number }> {
  let held = Buffer.alloc(0)
  for await (const bytes of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
    held = Buffer.concat([held, bytes as Buffer])
    for (let at = held.indexOf(10); at >= 0; at = held.indexOf(10)) {
      const text = held.toString('utf8', 0, at)
      held = held.subarray(at + 1)
      try {
        yield { line: JSON.parse(text) as Line, length: at + 1 }
      } catch {
        // A machine that lost power can leave a line of anything; what follows it can't be trusted either.
        return
      }
    }
  }
}
