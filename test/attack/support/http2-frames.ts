import type { Duplex } from 'node:stream'

/** HTTP/2 by hand: what no library would send. */

export const frameTypes = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goAway: 7, windowUpdate: 8, more: 9 }
export const flags = { endStream: 1, endHeaders: 4 }

export interface Frame {
  type: number
  flags: number
  stream: number
  payload: Buffer
}

export const preface = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  frame(frameTypes.settings, 0, 0, Buffer.alloc(0)),
])

export function frame(type: number, flag: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head.writeUInt8(type, 3)
  head.writeUInt8(flag, 4)
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** Fields as they are: nothing is indexed, compressed or looked at. */
export function fields(list: readonly (readonly [name: string, value: string])[]): Buffer {
  return Buffer.concat(list.flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]))
}

export function request(stream: number, list: readonly (readonly [string, string])[], last = true): Buffer {
  return frame(frameTypes.headers, flags.endHeaders | (last ? flags.endStream : 0), stream, fields(list))
}

export const usual = (host: string, path = '/'): [string, string][] => [
  [':method', 'GET'],
  [':scheme', 'https'],
  [':authority', host],
  [':path', path],
]

function text(value: string): Buffer {
  const bytes = Buffer.from(value, 'latin1')
  return Buffer.concat([length(bytes.length), bytes])
}

/** An integer with a prefix of seven bits. */
function length(value: number): Buffer {
  if (value < 127) return Buffer.from([value])
  const bytes = [127]
  let rest = value - 127
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128)
  return Buffer.from([...bytes, rest])
}

/** Sends, and reads frames until a stream has ended, the other side closes, or is silent for a while. */
export function exchangeFrames(socket: Duplex, bytes: Buffer, { until = 0, silentMs = 400 } = {}): Promise<Frame[]> {
  return new Promise((resolve) => {
    const frames: Frame[] = []
    let received = Buffer.alloc(0)
    const finish = () => {
      clearTimeout(timer)
      socket.destroy()
      resolve(frames)
    }
    const timer = setTimeout(finish, silentMs)
    socket.on('error', finish)
    socket.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk])
      while (received.length >= 9 && received.length >= 9 + received.readUIntBE(0, 3)) {
        const end = 9 + received.readUIntBE(0, 3)
        const [type = 0, flag = 0] = received.subarray(3, 5)
        const stream = received.readUInt32BE(5) & 0x7fffffff
        frames.push({ type, flags: flag, stream, payload: received.subarray(9, end) })
        received = received.subarray(end)
      }
      timer.refresh()
      const isLast = ({ type, flags: flag, stream }: Frame) =>
        type === frameTypes.goAway || (stream === until && (flag & flags.endStream) > 0 && type <= frameTypes.headers)
      if (frames.some(isLast)) finish()
    })
    socket.once('end', finish)
    socket.once('close', finish)
    socket.write(bytes)
  })
}
