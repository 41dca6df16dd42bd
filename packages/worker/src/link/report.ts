import type { Logger } from 'pino'
import { type Link, LinkError, retry } from './client.ts'
import type { Chunk, Journal, Outcome, Place, Stream } from './journal.ts'
import { openGatherer, type Piece, pieceBytes } from './output.ts'

/** The first output leaves at once; what follows within this time leaves together. */
const gatherMs = 25
/** Most of one request, and most of what waits for its acknowledgement that is also kept in memory. */
const batchBytes = 1024 * 1024
const batchChunks = 1000

/** Everything one session has to say, repeated until the control plane has it. */
export interface Report {
  /** Resolves when more can be taken. What is beyond the limit of a stream is dropped. Never rejects */
  write(stream: Stream, bytes: Buffer): Promise<void>
  /** Settles the session, with what was written. `left`: the worker closes, and its next run will report it */
  finish(outcome: Outcome): Promise<'acknowledged' | 'refused' | 'left'>
  /** Says no more and forgets what was written. */
  abandon(): Promise<void>
  /** Resolves when reporting makes no sense any more: a LinkError when it is refused, another when the journal fails */
  readonly broken: Promise<Error>
}

export interface ReportOptions {
  link: Link
  journal: Journal
  log: Logger
  /** Aborts when the worker closes: what is not acknowledged by then stays in the journal */
  closing: AbortSignal
  /** What a former run of the worker wrote, in order */
  earlier?: (Place & { n: number })[]
}

export function openReport({ link, journal, log, closing, earlier = [] }: ReportOptions): Report {
  const params = { sessionId: journal.sessionId }
  const { promise: broken, resolve: give } = Promise.withResolvers<Error>()
  // Aborts when nothing more shall be sent but the finish.
  const over = new AbortController()
  const queue = openQueue(journal, earlier)
  const cutter = openCutter({
    take: async (pieces) => {
      for (const { stream, bytes } of pieces) await queue.add(stream, bytes)
      sendAll()
    },
    failed: give,
  })
  let sending: Promise<void> | undefined

  function sendAll(): void {
    if (queue.length === 0 || over.signal.aborted) return
    sending ??= send().finally(() => {
      sending = undefined
      sendAll()
    })
  }

  async function send() {
    try {
      await retry(sendBatch, { name: 'Reporting output', log, signal: over.signal })
    } catch (error) {
      if (over.signal.aborted) return
      over.abort()
      give(error as Error)
    }
  }

  async function sendBatch() {
    const { first, chunks, last } = await queue.batch()
    const { stored } = await link.call('reportOutput', { params, body: { fence: journal.fence, first, chunks } })
    queue.drop(stored)
    if (stored < last) throw new LinkError(0, 'BAD_ANSWER', `Of the output up to ${last} only ${stored} was stored`)
  }

  // What is under way now goes again with the finish, which so needn't wait for it; what is stored is passed over.
  async function sendFinish(outcome: Outcome) {
    if (queue.bytes > batchBytes) await sending
    const signal = closing
    while (queue.bytes > batchBytes || queue.length > batchChunks) {
      await retry(sendBatch, { name: 'Reporting output', log, signal })
    }
    const { first, chunks } = await queue.batch()
    const body = { fence: journal.fence, outcome, first, chunks }
    const finish = () => link.call('finishSession', { params, body, signal })
    await retry(finish, { name: 'Reporting the end of a session', log, signal })
  }

  return {
    broken,
    write: (stream, bytes) => cutter.write(stream, bytes),
    async finish(outcome) {
      try {
        for (const { stream, bytes } of await cutter.end()) await queue.add(stream, bytes)
        // The last output needn't wait for the disk.
        sendAll()
        await journal.settle(outcome)
      } catch (error) {
        log.error({ err: error }, 'The end of a session could not be written to the journal')
      }
      over.abort()
      try {
        await sendFinish(outcome)
      } catch (error) {
        if (closing.aborted) {
          await journal.close()
          return 'left'
        }
        log.warn({ err: error, ...params }, 'The report of an ended session was refused')
        await journal.remove()
        return 'refused'
      }
      await journal.remove()
      return 'acknowledged'
    },
    async abandon() {
      over.abort()
      await cutter.end()
      await journal.remove()
    },
  }
}

/** Takes what is written, at once when there was nothing for a while, else in pieces that were gathered. */
function openCutter({ take, failed }: { take: (pieces: Piece[]) => Promise<void>; failed: (error: Error) => void }) {
  const gatherer = openGatherer()
  let fresh = false
  let ended = false
  let running: Promise<void> | undefined
  let wake: (() => void) | undefined
  let cut = Promise.withResolvers<void>()

  async function run() {
    try {
      while (fresh && !ended) {
        fresh = false
        await take(gatherer.take())
        cut.resolve()
        cut = Promise.withResolvers()
        if (!ended && gatherer.bytes < pieceBytes) await pause()
      }
    } catch (error) {
      ended = true
      failed(error as Error)
    } finally {
      cut.resolve()
      running = undefined
    }
  }

  function pause(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, gatherMs)
    wake = () => {
      clearTimeout(timer)
      resolve()
    }
    return promise
  }

  return {
    async write(stream: Stream, bytes: Buffer) {
      if (ended) return
      gatherer.add(stream, bytes)
      fresh = true
      running ??= run()
      if (gatherer.bytes < pieceBytes) return
      // Whoever writes faster than the disk waits for it.
      wake?.()
      await cut.promise
    },
    /** @returns what was not taken yet */
    async end(): Promise<Piece[]> {
      ended = true
      wake?.()
      await running
      return gatherer.take(true)
    },
  }
}

/** Chunks that wait for their acknowledgement: all of them in the journal, the first of them in memory too. */
function openQueue(journal: Journal, earlier: (Place & { n: number })[]) {
  const waiting: (Place & { n: number; chunk?: Chunk })[] = [...earlier]
  let last = earlier.at(-1)?.n ?? 0
  let bytes = earlier.reduce((sum, { length }) => sum + length, 0)
  let inMemory = 0

  return {
    get length() {
      return waiting.length
    },
    get bytes() {
      return bytes
    },
    async add(stream: Stream, data: Buffer) {
      const chunk = { n: last + 1, stream, data: data.toString('base64') }
      const place = await journal.append(chunk)
      last = chunk.n
      bytes += place.length
      const keep = inMemory < batchBytes
      if (keep) inMemory += place.length
      waiting.push({ ...place, n: chunk.n, ...(keep && { chunk }) })
    },
    /** The next that fit into one request; `last` is the number of its last one */
    async batch() {
      const chunks: Pick<Chunk, 'stream' | 'data'>[] = []
      const first = waiting[0]?.n ?? last + 1
      let size = 0
      for (const { chunk, ...place } of waiting.slice(0, batchChunks)) {
        size += place.length
        if (chunks.length > 0 && size > batchBytes) break
        const { stream, data } = chunk ?? (await journal.read(place))
        chunks.push({ stream, data })
      }
      return { first, chunks, last: first + chunks.length - 1 }
    },
    drop(stored: number) {
      for (let next = waiting[0]; next && next.n <= stored; next = waiting[0]) {
        waiting.shift()
        bytes -= next.length
        if (next.chunk) inMemory -= next.length
      }
    },
  }
}
