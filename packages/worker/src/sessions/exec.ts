import { once } from 'node:events'
import type { Readable } from 'node:stream'
import { encodeFrame, encodeJsonFrame, type FrameKind, type TunnelExec, type TunnelExit } from '@paws/api'
import type { TunnelStream } from '../link/tunnel.ts'
import { endProcess, exitCodeOf } from '../sandbox/command.ts'
import { errorOf, type SessionRequest } from './request.ts'

/** Longest request: arguments, environment and stdin of one command, as JSON. */
const maxRequestBytes = 16 * 1024 * 1024

/** Runs one more command and streams it as frames. Whoever leaves kills it. */
export async function exec({ stream, sandbox, env }: SessionRequest): Promise<void> {
  const request = JSON.parse(String(await readAll(stream))) as TunnelExec
  const { command: argv, cwd, stdin, timeoutMs } = request
  const process = sandbox.exec({ argv, env: { ...env, ...request.env }, cwd, stdin: stdin !== undefined })
  stream.respond({ ':status': 200 })
  let relent: (() => void) | undefined
  const end = () => {
    relent = endProcess(process, 'SIGTERM')
  }
  stream.once('close', end)
  let timedOut = false
  const timeout = () => {
    timedOut = true
    end()
  }
  const timer = timeoutMs === undefined ? undefined : setTimeout(timeout, timeoutMs)
  // A program that does not read its input has not failed by that.
  process.stdin.on('error', () => undefined)
  if (stdin !== undefined) process.stdin.end(stdin)
  try {
    await Promise.all([pump(process.stdout, stream, 'stdout'), pump(process.stderr, stream, 'stderr')])
    const exit: TunnelExit = { exitCode: exitCodeOf(await process.exit), timedOut: timedOut || undefined }
    stream.end(encodeJsonFrame('exit', exit))
  } catch (error) {
    if (!stream.destroyed) stream.end(encodeJsonFrame('error', errorOf(error)))
    // With nobody left to tell, it is over once the program is.
    else await process.exit.catch(() => undefined)
  } finally {
    stream.off('close', end)
    clearTimeout(timer)
    relent?.()
  }
}

/** Waits whenever the other end is slower; what a frame holds is bounded by what the stream gives at once. */
export async function pump(source: Readable, stream: TunnelStream, kind: FrameKind): Promise<void> {
  for await (const bytes of source) {
    if (stream.destroyed) {
      source.resume()
      return
    }
    if (!stream.write(encodeFrame(kind, bytes as Buffer))) await drained(stream)
  }
}

async function drained(stream: TunnelStream): Promise<void> {
  const over = new AbortController()
  const { signal } = over
  // The one that comes second is never awaited: its rejection is only the abort below.
  const events = [once(stream, 'drain', { signal }), once(stream, 'close', { signal })]
  await Promise.race(events).finally(() => over.abort())
  await Promise.allSettled(events)
}

async function readAll(stream: TunnelStream): Promise<Buffer> {
  const pieces: Buffer[] = []
  let size = 0
  for await (const piece of stream) {
    size += (piece as Buffer).length
    if (size > maxRequestBytes) throw new Error('A request through the tunnel is too long')
    pieces.push(piece as Buffer)
  }
  return Buffer.concat(pieces)
}
