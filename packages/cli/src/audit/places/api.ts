import { textForms } from '../forms.ts'
import { type Note, type PlaceKind, type Subject, textItem } from '../place.ts'
import type { Item } from '../search.ts'

/** Streams that go on are left once they have been silent for so long. */
const silenceMs = 1500

interface Document {
  paths: Record<string, { get?: { parameters?: Parameter[] } }>
}
interface Parameter {
  name: string
  in: string
  schema?: { enum?: string[] }
}

export const api: PlaceKind = {
  what: 'what every GET of the API answers, streams and headers included',
  when: ['running', 'ended'],
  holds: textForms,
  async *items(subject, note) {
    const { url } = subject.credentials
    const document = (await (await fetch(`${url}/openapi.json`)).json()) as Document
    for (const [path, { get }] of Object.entries(document.paths)) {
      if (get) yield* answersOf(path, get.parameters ?? [], subject, note)
    }
  },
}

/** Of one operation: with each thing that it may be asked about, and with each choice that its query leaves. */
async function* answersOf(path: string, parameters: Parameter[], subject: Subject, note: Note): AsyncGenerator<Item> {
  const missing = [...path.matchAll(/\{(\w+)\}/g)].find(([, name = '']) => !subject.params[name])?.[1]
  if (missing) return note(`GET ${path} was not asked: there is no ${missing} to ask about`)
  for (const filled of fill(path, subject.params)) {
    const choices = parameters.find((one) => one.in === 'query' && one.schema?.enum && one.name === 'stream')
    const queries = choices?.schema?.enum?.map((value) => `?${choices.name}=${value}`) ?? ['']
    for (const query of queries) {
      const target = `${filled}${query}${path.endsWith('/files') ? '?path=/etc/hostname' : ''}`
      yield textItem(`GET ${target}`, await answer(target, subject))
    }
  }
}

function fill(path: string, params: Record<string, string[]>): string[] {
  const name = /\{(\w+)\}/.exec(path)?.[1]
  if (!name) return [path]
  const values = params[name] ?? []
  return values.flatMap((value) => fill(path.replace(`{${name}}`, encodeURIComponent(value)), params))
}

/** Whatever comes, refusals too. */
async function answer(path: string, { credentials }: Subject): Promise<Buffer> {
  const silence = new AbortController()
  let timer = setTimeout(() => silence.abort(), 30_000)
  const headers = { authorization: `Bearer ${credentials.apiKey}` }
  const pieces: Uint8Array[] = []
  try {
    const response = await fetch(`${credentials.url}${path}`, { headers, signal: silence.signal })
    pieces.push(Buffer.from(JSON.stringify([...response.headers])), Buffer.from('\n'))
    for await (const bytes of response.body ?? []) {
      pieces.push(bytes)
      clearTimeout(timer)
      timer = setTimeout(() => silence.abort(), silenceMs)
    }
  } catch (error) {
    // A stream that goes on: what has come is looked through.
    if (!silence.signal.aborted) throw error
  } finally {
    clearTimeout(timer)
  }
  return Buffer.concat(pieces)
}
