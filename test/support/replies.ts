/** One answer over HTTP/1.1, read by a reader of our own: it must not be as lenient as a client. */
export interface Reply {
  status: number
  statusText: string
  /** Names in lower case */
  headers: [name: string, value: string][]
  /** Latin-1, without the framing of chunks */
  body: string
  trailers: [name: string, value: string][]
}

/** @returns the answers that are there as a whole, and what follows them */
export function parseReplies(text: string, { ended = false } = {}): { replies: Reply[]; rest: string } {
  const replies: Reply[] = []
  let rest = text
  while (rest) {
    const read = readReply(rest, ended)
    if (!read) break
    replies.push(read.reply)
    rest = rest.slice(read.length)
  }
  return { replies, rest }
}

export function header(reply: Reply, name: string): string | undefined {
  return reply.headers.find(([key]) => key === name)?.[1]
}

function readReply(text: string, ended: boolean): { reply: Reply; length: number } | undefined {
  const end = text.indexOf('\r\n\r\n')
  if (end < 0) return undefined
  const [first = '', ...lines] = text.slice(0, end).split('\r\n')
  const [, status, statusText = ''] = /^HTTP\/1\.[01] (\d{3}) ?(.*)$/s.exec(first) ?? []
  if (!status) throw new Error(`Not an answer: ${JSON.stringify(first.slice(0, 200))}`)
  const reply: Reply = { status: Number(status), statusText, headers: lines.map(readHeader), body: '', trailers: [] }
  const start = end + 4
  if (reply.status < 200 || reply.status === 204 || reply.status === 304) return { reply, length: start }
  if (header(reply, 'transfer-encoding')) return readChunks(reply, text, start)
  const size = header(reply, 'content-length')
  if (size === undefined && !ended) return undefined
  const length = size === undefined ? text.length : start + Number(size)
  if (text.length < length) return undefined
  reply.body = text.slice(start, length)
  return { reply, length }
}

function readChunks(reply: Reply, text: string, start: number): { reply: Reply; length: number } | undefined {
  for (let at = start; ; ) {
    const lineEnd = text.indexOf('\r\n', at)
    if (lineEnd < 0) return undefined
    const size = Number.parseInt(text.slice(at, lineEnd), 16)
    if (!(size >= 0)) throw new Error(`Not a chunk: ${JSON.stringify(text.slice(at, lineEnd))}`)
    if (size === 0) {
      const trailer = text.startsWith('\r\n', lineEnd + 2)
      const end = trailer ? lineEnd + 2 : text.indexOf('\r\n\r\n', lineEnd)
      if (end < 0) return undefined
      if (!trailer)
        reply.trailers = text
          .slice(lineEnd + 2, end)
          .split('\r\n')
          .map(readHeader)
      return { reply, length: end + (trailer ? 2 : 4) }
    }
    if (text.length < lineEnd + 2 + size + 2) return undefined
    reply.body += text.slice(lineEnd + 2, lineEnd + 2 + size)
    at = lineEnd + 2 + size + 2
  }
}

function readHeader(line: string): [string, string] {
  const colon = line.indexOf(':')
  return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
}
