import { sessionCan } from '@paws/api/lifecycles'
import { PawsError } from './errors.ts'
import { type EventOf, type FollowOptions, followEvents, readEvents } from './events.ts'
import type { components, operations } from './generated/api.ts'
import { dataOf, type Http, once, pages } from './http.ts'
import { openTerminal, type TerminalOptions } from './terminal.ts'
import type { Transport } from './transport.ts'

type Schemas = components['schemas']
export type Session = Schemas['Session']
export type SessionSummary = Schemas['SessionSummary']
export type SessionStatus = Schemas['SessionStatus']
export type EgressRecord = Schemas['EgressRecord']
export type CreateSession = Schemas['CreateSession']
export type ExecCommand = Schemas['ExecCommand']
export type SessionEvent = EventOf<operations['streamSessionEvents']['responses'][200]['content']['text/event-stream']>
export type ExecEvent = EventOf<operations['execInSession']['responses'][200]['content']['text/event-stream']>

export interface SessionFilter {
  status?: SessionStatus
  /** Top-level keys of the metadata and the text of their values */
  metadata?: Record<string, string>
}

export interface WaitOptions extends FollowOptions {
  /** Everything that the session tells on the way */
  onEvent?: (event: SessionEvent) => void
}

export function sessionsOf(http: Http, transport: Transport) {
  const pathOf = (sessionId: string) => `/v1/sessions/${encodeURIComponent(sessionId)}`

  const create = (body: CreateSession, options: { signal?: AbortSignal } = {}) =>
    dataOf(http.POST('/v1/sessions', { params: { header: once() }, body, ...options }))

  const get = (sessionId: string) => dataOf(http.GET('/v1/sessions/{sessionId}', { params: { path: { sessionId } } }))

  /** Status and output from the beginning, each event once, over broken connections; ends after `done`. */
  function events(sessionId: string, options?: FollowOptions) {
    const path = `${pathOf(sessionId)}/events`
    return followEvents(transport, path, ({ event }) => event === 'done', options) as AsyncGenerator<SessionEvent, void>
  }

  /** Waits until the session has ended, in whatever way. */
  async function wait(sessionId: string, { onEvent, ...options }: WaitOptions = {}): Promise<Session> {
    for await (const event of events(sessionId, options)) onEvent?.(event)
    return get(sessionId)
  }

  return {
    create,
    get,
    events,
    wait,

    /** Creates a session and waits for its end. Aborting stops the waiting; it cancels nothing. */
    async run(body: CreateSession, options: WaitOptions = {}): Promise<Session> {
      const { sessionId } = await create(body, { signal: options.signal })
      return wait(sessionId, options)
    },

    /** All sessions, newest first, loaded page by page as they are asked for. */
    list({ status, metadata = {} }: SessionFilter = {}): AsyncGenerator<SessionSummary, void> {
      const filters = Object.fromEntries(Object.entries(metadata).map(([key, value]) => [`metadata.${key}`, value]))
      return pages(
        (cursor) => dataOf(http.GET('/v1/sessions', { params: { query: { status, cursor, limit: 100, ...filters } } })),
        (page) => page.sessions,
      )
    },

    /** Its outgoing requests, newest first: refused ones, and with `network.auditLog` all. */
    egress(
      sessionId: string,
      { decision }: { decision?: EgressRecord['decision'] } = {},
    ): AsyncGenerator<EgressRecord, void> {
      return pages(
        (cursor) =>
          dataOf(
            http.GET('/v1/sessions/{sessionId}/egress', {
              params: { path: { sessionId }, query: { decision, cursor, limit: 200 } },
            }),
          ),
        (page) => page.requests,
      )
    },

    /** Answers once every process of it is gone; one that had ended keeps its status. */
    cancel: (sessionId: string) => dataOf(http.DELETE('/v1/sessions/{sessionId}', { params: { path: { sessionId } } })),

    /**
     * Runs one more command in a running session. Leaving the loop kills it.
     *
     * @throws PawsError when the connection breaks before `exit`: a command is never run a second time
     */
    async *exec(
      sessionId: string,
      command: ExecCommand,
      options: { signal?: AbortSignal } = {},
    ): AsyncGenerator<ExecEvent, void> {
      const response = await transport.send(
        transport.request(`${pathOf(sessionId)}/exec`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
          body: JSON.stringify(command),
          signal: options.signal,
        }),
      )
      for await (const event of readEvents(response, options.signal) as AsyncGenerator<ExecEvent, void>) {
        yield event
        if (event.event === 'exit' || event.event === 'error') return
      }
      throw new PawsError('The connection broke before the command had ended. It has been killed.', {
        code: 'UNREACHABLE',
        status: 0,
      })
    },

    /** The whole of one stream as bytes, so far. */
    async logs(sessionId: string, { stream = 'stdout' }: { stream?: 'stdout' | 'stderr' } = {}) {
      return bytesOf(await transport.send(transport.request(`${pathOf(sessionId)}/logs`, { query: { stream } })))
    },

    files: {
      /** A regular file of a running session, as a stream of bytes. */
      async read(sessionId: string, path: string) {
        return bytesOf(await transport.send(transport.request(`${pathOf(sessionId)}/files`, { query: { path } })))
      },
      /** Writes a file, whole or not at all. A stream is sent once; anything else again after a lost connection. */
      async write(
        sessionId: string,
        path: string,
        content: Uint8Array<ArrayBuffer> | string | Blob | ReadableStream<Uint8Array>,
        { mode }: { mode?: string } = {},
      ): Promise<void> {
        const request = transport.request(`${pathOf(sessionId)}/files`, {
          method: 'PUT',
          query: { path, mode },
          headers: { 'content-type': 'application/octet-stream' },
          body: content,
          ...(content instanceof ReadableStream && { duplex: 'half' as const }),
        })
        await transport.send(request, content instanceof ReadableStream ? { retries: 0 } : undefined)
      },
    },

    /** Opens a login shell in a running session. */
    terminal(sessionId: string, options: TerminalOptions) {
      return openTerminal(transport, `${pathOf(sessionId)}/terminal`, options, async () => {
        const session = await get(sessionId).catch((error: unknown) => error)
        if (session instanceof PawsError) return session
        const { status } = session as Session
        if ((sessionCan.terminal as readonly SessionStatus[]).includes(status)) return undefined
        const message = `Session ${sessionId} is ${status}. A terminal opens only while it is ${sessionCan.terminal.join(' or ')}.`
        return new PawsError(message, { code: 'INVALID_STATE', status: 409 })
      })
    },
  }
}

function bytesOf(response: Response): ReadableStream<Uint8Array<ArrayBuffer>> {
  return response.body ?? new Blob([]).stream()
}
