import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { answerParent } from './children.ts'

/*
 * A host for bench/egress.ts, in a process of its own: a small answer to everything, and `/bytes/N` for so many bytes.
 */

const answer = Buffer.from(JSON.stringify({ id: 'msg_0123456789', type: 'message', usage: { output_tokens: 12 } }))
/** Text as APIs send it: names, escapes, a URL here and there. */
const lines = Array.from(
  { length: 700 },
  (_, at) => `{"id":${at},"name":"A \\"thing\\"\\n","at":"https://x.test/a%20b?c=${at}"}\n`,
)
const block = Buffer.from(lines.join('')).subarray(0, 32_768)

export interface HostCommands {
  listen(certificate: { cert: string; key: string }): number
}

answerParent<HostCommands>({
  async listen(certificate) {
    const server = createServer({ ...certificate, keepAliveTimeout: 60_000 }, (request, response) => {
      const bytes = /^\/bytes\/(\d+)$/.exec(request.url ?? '')?.[1]
      request.resume()
      if (bytes) return void sendBytes(response, Number(bytes))
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': answer.length })
      response.end(answer)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return (server.address() as AddressInfo).port
  },
})

function sendBytes(response: NodeJS.WritableStream & { writeHead?: unknown }, bytes: number): void {
  let left = bytes
  const more = () => {
    while (left > 0) {
      const piece = block.subarray(0, left)
      left -= piece.length
      if (!response.write(piece)) return
    }
    response.end()
  }
  response.on('drain', more)
  more()
}
