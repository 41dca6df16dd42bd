import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { crc32 } from 'node:zlib'
import type { Certificate } from './certificates.ts'

export interface FakeIndex {
  port: number
  /** Paths that were asked for, in their order */
  requests: string[]
  close(): void
}

export interface FakeIndexOptions {
  certificate: Certificate
  /** Module and distribution at once */
  name: string
  /** Python source of the module */
  source: string
}

/** A stand-in for a package index of Python, PEP 503, with one wheel in it. */
export async function startFakeIndex({ certificate, name, source }: FakeIndexOptions): Promise<FakeIndex> {
  const wheel = makeWheel(name, source)
  const file = `${name}-1.0-py3-none-any.whl`
  const sha256 = createHash('sha256').update(wheel).digest('hex')
  const pages: Record<string, { type: string; body: string | Buffer }> = {
    [`/simple/${name}/`]: { type: 'text/html', body: `<a href="/files/${file}#sha256=${sha256}">${file}</a>` },
    [`/files/${file}`]: { type: 'application/octet-stream', body: wheel },
  }
  const requests: string[] = []
  const server = createServer(certificate, (request, response) => {
    requests.push(request.url ?? '')
    const page = pages[request.url ?? '']
    response.writeHead(page ? 200 : 404, { 'content-type': page?.type ?? 'text/plain' })
    response.end(page?.body)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    requests,
    close() {
      server.closeAllConnections()
      server.close()
    },
  }
}

function makeWheel(name: string, source: string): Buffer {
  const info = `${name}-1.0.dist-info`
  const files: Record<string, string> = {
    [`${name}.py`]: source,
    [`${info}/METADATA`]: `Metadata-Version: 2.1\nName: ${name}\nVersion: 1.0\n`,
    [`${info}/WHEEL`]: 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
  }
  const digest = (text: string) => createHash('sha256').update(text).digest('base64url')
  const record = Object.entries(files).map(
    ([path, text]) => `${path},sha256=${digest(text)},${Buffer.byteLength(text)}`,
  )
  files[`${info}/RECORD`] = [...record, `${info}/RECORD,,`, ''].join('\n')
  return zip(files)
}

/** A ZIP archive of files that aren't compressed. */
function zip(files: Record<string, string>): Buffer {
  const locals: Buffer[] = []
  const central: Buffer[] = []
  let offset = 0
  for (const [path, text] of Object.entries(files)) {
    const [name, data] = [Buffer.from(path), Buffer.from(text)]
    // Version needed, flags, method, time, date, checksum, both sizes, length of the name, of what is extra
    const common = Buffer.alloc(26)
    common.writeUInt16LE(20, 0)
    common.writeUInt16LE(0x21, 8)
    common.writeUInt32LE(crc32(data), 10)
    common.writeUInt32LE(data.length, 14)
    common.writeUInt32LE(data.length, 18)
    common.writeUInt16LE(name.length, 22)
    // Comment, disk, two kinds of attributes, where the file itself begins
    const rest = Buffer.alloc(14)
    rest.writeUInt32LE(0o100644 * 65_536, 6)
    rest.writeUInt32LE(offset, 10)
    const local = Buffer.concat([Buffer.from('PK\x03\x04'), common, name, data])
    locals.push(local)
    central.push(Buffer.concat([Buffer.from('PK\x01\x02'), Buffer.from([20, 3]), common, rest, name]))
    offset += local.length
  }
  const index = Buffer.concat(central)
  const end = Buffer.alloc(18)
  end.writeUInt16LE(central.length, 4)
  end.writeUInt16LE(central.length, 6)
  end.writeUInt32LE(index.length, 8)
  end.writeUInt32LE(offset, 12)
  return Buffer.concat([...locals, index, Buffer.from('PK\x05\x06'), end])
}
