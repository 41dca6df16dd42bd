import type { Readable } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import { type ExecCommand, frameDecoder, type TunnelError, type TunnelExec, type TunnelExit } from '@paws/api'
import { askSession, type IoServices } from './reach.ts'

type Command = (typeof ExecCommand)['_zod']['output']

export type ExecEvent =
  | { id: number; event: 'stdout' | 'stderr'; data: { text: string } }
  | { id: number; event: 'exit'; data: TunnelExit }
  | { id: number; event: 'error'; data: { code: string; message: string } }

export interface ExecOptions {
  orgId: string
  sessionId: string
  command: Command
  /** Aborts when the client has left, which kills the command */
  signal: AbortSignal
}

/**
 * Runs one more command in a running session.
 *
 * @returns its output as it comes and its end. What isn't UTF-8 becomes U+FFFD; no character is cut in two
 */
export async function execInSession(
  services: IoServices,
  { orgId, sessionId, command, signal }: ExecOptions,
): Promise<AsyncIterable<ExecEvent>> {
  const { env = {}, ...rest } = command
  const body = JSON.stringify({ ...rest, env } satisfies TunnelExec)
  const request = { orgId, sessionId, action: 'exec', method: 'POST', path: 'exec', body, signal } as const
  const { stream } = await askSession(services, request)
  return toEvents(stream, signal)
}

async function* toEvents(stream: Readable, signal: AbortSignal): AsyncGenerator<ExecEvent> {
  const decode = frameDecoder()
  const texts = { stdout: new StringDecoder('utf8'), stderr: new StringDecoder('utf8') }
  let id = 0
  function* rest(): Generator<ExecEvent> {
    for (const event of ['stdout', 'stderr'] as const) {
      const text = texts[event].end()
      if (text) yield { id: ++id, event, data: { text } }
    }
  }
  try {
    for await (const bytes of stream) {
      for (const { kind, payload } of decode(bytes as Buffer)) {
        if (kind === 'stdout' || kind === 'stderr') {
          const text = texts[kind].write(payload)
          if (text) yield { id: ++id, event: kind, data: { text } }
        } else if (kind === 'exit' || kind === 'error') {
          yield* rest()
          yield { id: ++id, event: kind, data: JSON.parse(String(payload)) } as ExecEvent
          return
        }
      }
    }
  } catch (error) {
    // A stream that breaks off is told below, unless nobody is left to tell.
    if (signal.aborted) return
    if (!(error instanceof Error && 'code' in error)) throw error
  } finally {
    stream.destroy()
  }
  if (signal.aborted) return
  yield* rest()
  const lost: Omit<TunnelError, 'code'> & { code: string } = {
    code: 'WORKER_UNREACHABLE',
    message: 'The worker went out of contact. Whether the command has ended is not known.',
  }
  yield { id: ++id, event: 'error', data: lost }
}
