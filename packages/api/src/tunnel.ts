/**
 * What a control plane asks of a worker through its tunnel. Private between our own two ends, so no endpoint of the
 * contract; it stands here because both import it and must agree. Plain HTTP/2 requests:
 *
 * - `POST /sessions/{id}/cancel` → 200 `{status}` once the sandbox is gone and its end is stored
 * - `POST /sessions/{id}/exec` with a `TunnelExec` → 200 and frames, the last one `exit` or `error`
 * - `POST /sessions/{id}/terminal?rows=&cols=` → 200 and frames both ways: `data` and `resize` (a `TunnelTerminal`) in,
 *   `data` out, the last one `exit` or `error`
 * - `GET /sessions/{id}/files?path=` → 200 and the bytes
 * - `PUT /sessions/{id}/files?path=&mode=` → 204; `content-length` saves the worker from spooling it first
 *
 * A refusal is a status and a `TunnelError`.
 */

/** Name of the upgrade by which a worker turns its request into the tunnel. */
export const tunnelProtocol = 'paws-tunnel'

/** A kind's number on the wire is its place here. */
const frameKinds = ['data', 'stdout', 'stderr', 'exit', 'error', 'resize'] as const
export type FrameKind = (typeof frameKinds)[number]

export interface Frame {
  kind: FrameKind
  payload: Buffer
}

export interface TunnelExec {
  command: string[]
  env: Record<string, string>
  cwd: string
  stdin?: string
  timeoutMs?: number
}

export interface TunnelTerminal {
  rows: number
  cols: number
}

/** Payload of `exit`; a signal is 128 + its number. */
export interface TunnelExit {
  exitCode: number
  timedOut?: boolean
}

/** Payload of `error`, and the body of an answer that is one. */
export interface TunnelError {
  code: 'NOT_RUNNING' | 'NOT_FOUND' | 'FILE_NOT_FOUND' | 'FILE_REFUSED' | 'REFUSED' | 'SANDBOX_LOST' | 'INTERNAL_ERROR'
  message: string
}

/** Longest payload of a frame, in bytes. */
export const maxFrameBytes = 1024 * 1024
const headerBytes = 5

/** One frame: length of the payload (4 bytes, big-endian), kind (1 byte), payload. */
export function encodeFrame(kind: FrameKind, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(headerBytes + payload.length)
  frame.writeUInt32BE(payload.length, 0)
  frame.writeUInt8(frameKinds.indexOf(kind), 4)
  frame.set(payload, headerBytes)
  return frame
}

export function encodeJsonFrame(kind: FrameKind, value: unknown): Buffer {
  return encodeFrame(kind, Buffer.from(JSON.stringify(value)))
}

/**
 * Takes bytes as they come, however they are cut, and gives the frames that are complete.
 *
 * @throws for a frame that is too long or of a kind there isn't
 */
export function frameDecoder(): (bytes: Uint8Array) => Frame[] {
  let held: Buffer = Buffer.alloc(0)
  return (bytes) => {
    const all =
      held.length === 0 ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length) : Buffer.concat([held, bytes])
    const frames: Frame[] = []
    let at = 0
    while (all.length - at >= headerBytes) {
      const length = all.readUInt32BE(at)
      const kind = frameKinds[all.readUInt8(at + 4)]
      if (length > maxFrameBytes || !kind)
        throw new Error(`Not a frame of the tunnel: kind ${all[at + 4]}, ${length} bytes`)
      if (all.length - at - headerBytes < length) break
      frames.push({ kind, payload: all.subarray(at + headerBytes, at + headerBytes + length) })
      at += headerBytes + length
    }
    held = all.subarray(at)
    return frames
  }
}

/** The HTTP/2 settings of both ends: a paused stream holds 1 MiB, and a far worker is not slowed by small windows. */
export const tunnelSettings = { initialWindowSize: 1024 * 1024, maxFrameSize: 64 * 1024, enablePush: false }
/** Bytes under way in the whole tunnel, in one direction. */
export const tunnelWindowBytes = 32 * 1024 * 1024
/** Above what Node refuses new streams of a tunnel; its default of 10 is reached by a few downloads that nobody reads. */
export const tunnelMemoryMB = 1024

/** What keeping a tunnel alive needs of an HTTP/2 session and the socket that it runs on. */
interface Session {
  readonly destroyed: boolean
  ping(callback: () => void): unknown
  once(event: 'close', listener: () => void): unknown
}
interface Socket {
  readonly bytesRead?: number
  destroy(): unknown
}

/** A killed peer is noticed by itself, a frozen one or a cut wire only by asking. Any byte that comes is an answer. */
export function keepTunnelAlive(session: Session, socket: Socket, everyMs: number, onDead: () => void): void {
  let seen = -1
  const timer = setInterval(() => {
    if (session.destroyed) return
    const received = socket.bytesRead ?? 0
    if (received !== seen) {
      seen = received
      // Its answer is bytes; the callback is only there because Node wants one.
      session.ping(() => undefined)
      return
    }
    onDead()
    socket.destroy()
  }, everyMs)
  session.once('close', () => clearInterval(timer))
}
