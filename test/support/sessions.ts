import { createParser, type EventSourceMessage } from 'eventsource-parser'
import { expect, vi } from 'vitest'
import type { TestControlPlane } from './control-plane.ts'

export interface SessionAnswer {
  sessionId: string
  status: string
  exitCode?: number
  stdout?: string
  stderr?: string
  output?: unknown
  error?: { code: string; message: string }
  durationMs?: number
}

export interface StreamEvent {
  id: number
  event: string
  data: Record<string, unknown>
}

/** What tests do with sessions, over the API as any client does it. */
export function sessionsOf(plane: TestControlPlane) {
  const { url, key, call } = plane
  const get = async (sessionId: string) => (await call<SessionAnswer>('GET', `/v1/sessions/${sessionId}`)).body
  return {
    get,
    async start(script: string, options: Record<string, unknown> & { env?: Record<string, string> } = {}) {
      const { env, ...rest } = options
      const body = { snapshot: 'minimal', workload: { type: 'script', script, ...(env && { env }) }, ...rest }
      const answer = await call<SessionAnswer>('POST', '/v1/sessions', { body })
      expect(answer.status, JSON.stringify(answer.body)).toBe(202)
      return answer.body.sessionId
    },
    /** Waits until its output says so. */
    async saying(sessionId: string, text: string) {
      await expect.poll(async () => (await get(sessionId)).stdout, { timeout: 20_000 }).toContain(text)
    },
    async ended(sessionId: string, timeout = 20_000) {
      const end = async () => {
        const session = await get(sessionId)
        expect(session.status).not.toMatch(/pending|running/)
        return session
      }
      return vi.waitFor(end, { timeout, interval: 20 })
    },
    /** Events of any stream of the API, as they come. */
    async *events(method: string, path: string, options: RequestInit = {}): AsyncGenerator<StreamEvent> {
      const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json', ...options.headers }
      const response = await fetch(`${url}${path}`, { ...options, method, headers })
      expect(response.status, response.ok ? '' : await response.clone().text()).toBe(200)
      const queue: EventSourceMessage[] = []
      const parser = createParser({ onEvent: (event) => queue.push(event) })
      const decoder = new TextDecoder()
      for await (const bytes of response.body ?? []) {
        parser.feed(decoder.decode(bytes, { stream: true }))
        for (const { id, event, data } of queue.splice(0)) {
          yield { id: Number(id), event: event ?? '', data: JSON.parse(data) }
        }
      }
    },
  }
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}
