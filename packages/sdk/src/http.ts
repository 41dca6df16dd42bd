import createFetchClient, { type Client } from 'openapi-fetch'
import type { paths } from './generated/api.ts'
import type { Transport } from './transport.ts'

/** Every operation of the API, typed by its path. Refusals are thrown, so `data` is what was asked for. */
export type Http = Client<paths>

export function createHttp(transport: Transport): Http {
  return createFetchClient<paths>({ baseUrl: transport.url, fetch: (request) => transport.send(request) })
}

/** The body of an answer. */
export async function dataOf<T>(call: Promise<{ data?: T; response: Response }>): Promise<T> {
  const { data, response } = await call
  if (data === undefined) throw new TypeError(`${response.url} answered ${response.status} without a body.`)
  return data
}

/** A fresh key by which a repeated POST is known for the first: a retry never does a thing twice. */
export function once(): { 'Idempotency-Key': string } {
  return { 'Idempotency-Key': crypto.randomUUID() }
}

/** Walks a cursor list to its end. */
export async function* pages<Page extends { nextCursor?: string }, Item>(
  load: (cursor: string | undefined) => Promise<Page>,
  items: (page: Page) => Item[],
): AsyncGenerator<Item, void> {
  let cursor: string | undefined
  do {
    const page = await load(cursor)
    yield* items(page)
    cursor = page.nextCursor
  } while (cursor !== undefined)
}
