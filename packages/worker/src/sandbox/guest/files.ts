import { type Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { FileRefused } from '../driver.ts'
import { encodeFrame, frameType, guestBytes, ProtocolBreach } from './frames.ts'
import type { GuestLink } from './link.ts'
import { openInlet, openOutlet, outletReadable } from './streams.ts'

const reasons = { 1: 'not-found', 2: 'not-regular', 3: 'link', 4: 'too-large' } as const

function fileRefused(code: number, path: string, text: string): FileRefused {
  const reason = reasons[code as keyof typeof reasons] ?? 'io'
  return new FileRefused(reason, `The sandbox refused ${path}: ${text}`)
}

/** Writes a file; see `Sandbox.put`. Up to 256 KiB of bytes are on their way when it returns its promise. */
export function putInGuest(
  link: GuestLink,
  path: string,
  content: Uint8Array | Readable,
  { size, mode = 0o644 }: { size: number; mode?: number },
): Promise<void> {
  return new Promise<void>((resolve, reject) => {
    const name = guestBytes(path, 'The path')
    if (content instanceof Uint8Array && content.length !== size) {
      throw new RangeError(`${path} was announced with ${size} bytes and has ${content.length}`)
    }
    const over = new AbortController()
    const fail = (error: Error) => {
      inlet.finish()
      over.abort()
      reject(error)
    }
    const id = link.open({
      name: 'put',
      credit: (bytes) => inlet.credit(bytes),
      done: () => {
        if (!inlet.ended) throw new ProtocolBreach('a put was done before its end')
        resolve()
      },
      error: (code, text) => fail(fileRefused(code, path, text)),
      lost: fail,
    })
    const inlet = openInlet(link, id)
    link.send(encodeFrame(frameType.put, id, [4, mode], [8, size], name))
    if (content instanceof Uint8Array) {
      inlet.write(content, () => undefined)
      inlet.end()
      return
    }
    const sink = new Writable({ write: (chunk: Buffer, _, callback) => inlet.write(chunk, callback) })
    pipeline(content, sink, { signal: over.signal }).then(inlet.end, (error: Error) => {
      // Refused by the guest, which has been told above, or the content itself has failed.
      if (link.isOpen(id)) link.send(encodeFrame(frameType.cancel, id))
      fail(error)
    })
  })
}

/** Reads a file; see `Sandbox.get`. Destroying `content` early ends the request. */
export function getFromGuest(
  link: GuestLink,
  path: string,
  { maxBytes }: { maxBytes: number },
): Promise<{ size: number; content: Readable }> {
  return new Promise((resolve, reject) => {
    const name = guestBytes(path, 'The path')
    let size: number | undefined
    let received = 0
    const fail = (error: Error) => {
      content.destroy(error)
      reject(error)
    }
    const id = link.open({
      name: 'get',
      opened: (payload) => {
        if (size !== undefined || payload.length !== 8) throw new ProtocolBreach('a file was opened twice or badly')
        const announced = payload.readBigUInt64BE(0)
        if (announced > maxBytes) throw new ProtocolBreach(`a file of ${announced} bytes where ${maxBytes} may come`)
        size = Number(announced)
        resolve({ size, content })
      },
      data: (which, bytes) => {
        received += bytes.length
        const expected = which === 1 && size !== undefined && received <= size
        if (!expected) throw new ProtocolBreach('more of a file than was announced')
        outlet.data(bytes)
      },
      end: (which) => {
        if (which !== 1 || received !== size) throw new ProtocolBreach('less of a file than was announced')
        outlet.end()
      },
      done: () => {
        if (!outlet.ended) throw new ProtocolBreach('get was done before the end of the file')
      },
      error: (code, text) => fail(fileRefused(code, path, text)),
      lost: fail,
    })
    const outlet = openOutlet(link, id, 1, () => content)
    const content = outletReadable(outlet)
    content.on('close', () => {
      if (link.isOpen(id) && !outlet.ended) link.send(encodeFrame(frameType.cancel, id))
    })
    link.send(encodeFrame(frameType.get, id, [8, Math.min(maxBytes, Number.MAX_SAFE_INTEGER)], name))
  })
}
