import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { gunzipSync } from 'node:zlib'
import type { Certificate } from './certificates.ts'

/** One request as it arrived. */
export interface SeenRequest {
  method: string
  path: string
  /** Names in lower case and values, in their order, each as often as it came */
  headers: [name: string, value: string][]
  body: string
  /** What it was answered */
  status: number
}

export interface FakeMessages {
  port: number
  /** All of them, refused ones too */
  requests: SeenRequest[]
  close(): Promise<void>
}

export interface FakeMessagesOptions {
  certificate: Certificate
  /** The one key that is let in */
  apiKey: string
  /** What the model wants `Bash` to run */
  command: string
  /** Begins what it says once it has the result, which stands behind it */
  answer: string
}

/** The headers by which clients of models say who they are. */
const credentials = ['x-api-key', 'authorization', 'proxy-authorization', 'api-key', 'x-goog-api-key', 'cookie']

/**
 * A stand-in for the Messages API of Anthropic, over TLS. Its model has one idea: to run a command with the tool
 * `Bash`, and then to say what came of it. It lets nobody in but with the key as `x-api-key`, once, and no other
 * credential beside it, and refuses what the real one would refuse.
 */
export async function startFakeMessages(options: FakeMessagesOptions): Promise<FakeMessages> {
  const requests: SeenRequest[] = []
  const server = createTlsServer(options.certificate, (request, response) => {
    void answer(request, response, options).then(
      (seen) => requests.push(seen),
      // The client went away.
      () => response.destroy(),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    requests,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

async function answer(request: IncomingMessage, response: ServerResponse, options: FakeMessagesOptions) {
  const raw = await buffer(request)
  const body = (request.headers['content-encoding'] === 'gzip' ? gunzipSync(raw) : raw).toString()
  const headers = pairs(request.rawHeaders)
  const path = request.url ?? ''
  const seen = { method: request.method ?? '', path, headers, body, status: 200 }
  try {
    checkCredentials(headers, options.apiKey)
    if (path.split('?')[0] !== '/v1/messages') throw new Refusal(404, 'not_found_error', `There is no ${path} here`)
    if (request.method !== 'POST') throw new Refusal(405, 'invalid_request_error', 'POST it')
    if (request.headers['anthropic-version'] !== '2023-06-01') throw invalid('anthropic-version: header is required')
    const asked = parseRequest(body)
    const blocks = think(asked, options)
    if (asked.stream) stream(response, asked.model, blocks)
    else sendJson(response, 200, { ...messageOf(asked.model), ...endingOf(blocks), content: blocks })
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    seen.status = error.status
    sendJson(response, error.status, { type: 'error', error: { type: error.type, message: error.message } })
  }
  return seen
}

class Refusal extends Error {
  readonly status: number
  readonly type: string
  constructor(status: number, type: string, message: string) {
    super(message)
    this.status = status
    this.type = type
  }
}

const invalid = (message: string) => new Refusal(400, 'invalid_request_error', message)

function checkCredentials(headers: SeenRequest['headers'], apiKey: string): void {
  const given = headers.filter(([name]) => credentials.includes(name))
  const [only] = given
  if (given.length === 1 && only?.[0] === 'x-api-key' && only[1] === apiKey) return
  throw new Refusal(401, 'authentication_error', `invalid credentials: ${given.map(([name]) => name).join(', ')}`)
}

type Block =
  | { type: 'text'; text: string }
  | { type: 'tool_use'; id: string; name: string; input: unknown }
  | { type: 'tool_result'; tool_use_id: string; content?: unknown; is_error?: boolean }
  | { type: 'image' | 'document' | 'thinking' | 'redacted_thinking' }

interface Asked {
  model: string
  stream: boolean
  tools: string[]
  turns: { role: string; blocks: Block[] }[]
}

/** Takes what the real one takes, as far as a client with one tool goes. */
function parseRequest(text: string): Asked {
  const body = parseObject(text)
  const { model, max_tokens, messages, stream = false, tools = [] } = body
  if (typeof model !== 'string') throw invalid('model: Field required')
  if (!Number.isInteger(max_tokens) || Number(max_tokens) < 1) throw invalid('max_tokens: Field required')
  if (typeof stream !== 'boolean') throw invalid('stream: Input should be a valid boolean')
  if (!Array.isArray(tools) || !tools.every((tool) => typeof tool?.name === 'string')) throw invalid('tools: malformed')
  if (!Array.isArray(messages) || messages.length === 0) throw invalid('messages: at least one message is required')
  const turns = messages.map((message, at) => parseTurn(message, at))
  if (turns[0]?.role !== 'user') throw invalid('messages: first message must use the "user" role')
  for (const [at, turn] of turns.entries()) checkResults(turn, turns[at - 1], at)
  return { model, stream, tools: tools.map(({ name }: { name: string }) => name), turns }
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch {
    // Said below, like for any other value that is no object.
  }
  throw invalid('The request body is not valid JSON')
}

const blockTypes = ['text', 'tool_use', 'tool_result', 'image', 'document', 'thinking', 'redacted_thinking']

function parseTurn(message: unknown, at: number): Asked['turns'][number] {
  const { role, content } = Object(message) as { role?: unknown; content?: unknown }
  // Of late the roles include one for what the client itself has to say in between.
  if (role !== 'user' && role !== 'assistant' && role !== 'system') throw invalid(`messages.${at}.role: unexpected`)
  const blocks = typeof content === 'string' ? [{ type: 'text', text: content }] : content
  if (!Array.isArray(blocks) || blocks.length === 0) throw invalid(`messages.${at}.content: must not be empty`)
  for (const block of blocks) {
    if (!blockTypes.includes(block?.type)) throw invalid(`messages.${at}.content: unknown block ${block?.type}`)
    if (block.type === 'text' && typeof block.text !== 'string') throw invalid(`messages.${at}.content: text required`)
  }
  return { role, blocks }
}

/** A result answers a use in the message before it, and each use gets one. */
function checkResults({ blocks }: Asked['turns'][number], before: Asked['turns'][number] | undefined, at: number) {
  const uses = (before?.blocks ?? []).flatMap((block) => (block.type === 'tool_use' ? [block.id] : []))
  const results = blocks.flatMap((block) => (block.type === 'tool_result' ? [block.tool_use_id] : []))
  const stray = results.find((id) => !uses.includes(id))
  if (stray) throw invalid(`messages.${at}: unexpected tool_use_id in tool_result blocks: ${stray}`)
  const open = uses.find((id) => !results.includes(id))
  if (open) throw invalid(`messages.${at}: tool_use ids were found without tool_result blocks: ${open}`)
}

let made = 0
const newId = (prefix: string) => `${prefix}_${String(++made).padStart(24, '0')}`

function think({ tools, turns }: Asked, { command, answer }: FakeMessagesOptions): Block[] {
  // Clients ask a smaller model on the side, for a title and the like: those bring no tools.
  if (!tools.includes('Bash')) return [{ type: 'text', text: 'A test' }]
  const result = turns.flatMap(({ blocks }) => blocks).findLast((block) => block.type === 'tool_result')
  if (!result) {
    const input = { command, description: 'Runs it' }
    return [
      { type: 'text', text: 'I run it.' },
      { type: 'tool_use', id: newId('toolu'), name: 'Bash', input },
    ]
  }
  const { content } = result
  const said = typeof content === 'string' ? content : (content as { text?: string }[]).map(({ text }) => text).join('')
  return [{ type: 'text', text: `${answer}${said}` }]
}

function messageOf(model: string) {
  const usage = { input_tokens: 10, output_tokens: 1, cache_creation_input_tokens: 0, cache_read_input_tokens: 0 }
  return { id: newId('msg'), type: 'message', role: 'assistant', model, content: [], usage }
}

function endingOf(blocks: Block[]) {
  const uses = blocks.some(({ type }) => type === 'tool_use')
  return { stop_reason: uses ? 'tool_use' : 'end_turn', stop_sequence: null }
}

/** Each in several pieces, as a model would say it. */
function stream(response: ServerResponse, model: string, blocks: Block[]): void {
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' })
  const send = (type: string, data: object) =>
    void response.write(`event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`)
  send('message_start', { message: { ...messageOf(model), stop_reason: null, stop_sequence: null } })
  send('ping', {})
  blocks.forEach((block, index) => {
    if (block.type === 'text') {
      send('content_block_start', { index, content_block: { type: 'text', text: '' } })
      for (const text of pieces(block.text)) send('content_block_delta', { index, delta: { type: 'text_delta', text } })
    } else if (block.type === 'tool_use') {
      send('content_block_start', { index, content_block: { ...block, input: {} } })
      for (const partial_json of pieces(JSON.stringify(block.input))) {
        send('content_block_delta', { index, delta: { type: 'input_json_delta', partial_json } })
      }
    }
    send('content_block_stop', { index })
  })
  send('message_delta', { delta: endingOf(blocks), usage: { output_tokens: 20 } })
  send('message_stop', {})
  response.end()
}

function pieces(text: string): string[] {
  return text.match(/[\s\S]{1,7}/g) ?? ['']
}

function sendJson(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(JSON.stringify(body))
}

function pairs(raw: string[]): [string, string][] {
  return raw.flatMap((name, at) => (at % 2 === 0 ? [[name.toLowerCase(), raw[at + 1] ?? ''] as [string, string]] : []))
}
