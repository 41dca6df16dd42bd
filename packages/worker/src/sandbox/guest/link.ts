import type { Duplex } from 'node:stream'
import { SandboxLost } from '../driver.ts'
import { encodeFrame, type Frame, frameReader, frameType, ProtocolBreach, protocolVersion } from './frames.ts'

export type ExitStatus = { exitCode: number } | { signalNumber: number }

/** What a request takes as answers. One that it has no function for breaks the protocol. */
export interface Answers {
  /** For messages: what was asked */
  name: string
  data?(stream: number, bytes: Buffer): void
  end?(stream: number): void
  credit?(bytes: number): void
  opened?(payload: Buffer): void
  /** Last answers: after one of these nothing more may come */
  done?(): void
  exit?(how: ExitStatus): void
  error(code: number, text: string): void
  /** The connection has ended first */
  lost(error: SandboxLost): void
}

/** The connection to one guest agent: requests by id, and not one byte believed. */
export interface GuestLink {
  /** @returns the id of a new request, for whose answers `answers` is called from now on; 0 when the link is lost */
  open(answers: Answers): number
  /** Sends after what was sent before; what is sent in one turn of the event loop leaves together */
  send(...frames: Uint8Array[]): void
  /** Whether the request still waits for its last answer */
  isOpen(id: number): boolean
  close(reason: string): void
  readonly gone: Promise<{ reason: string }>
}

// An honest agent reads all the time; what a hostile one leaves unread may not pile up here.
const maxQueuedBytes = 64 * 1024 * 1024
const costOfWrite = 256

export function openLink(stream: Duplex): GuestLink {
  const requests = new Map<number, Answers>()
  const { promise: gone, resolve: settle } = Promise.withResolvers<{
    reason: string
  }>()
  let lost: SandboxLost | undefined
  let lastId = 0
  let greeted = false
  let queued = 0
  let batch: Uint8Array[] = []

  function close(reason: string) {
    if (lost) return
    lost = new SandboxLost(`The sandbox is gone: ${reason}`)
    batch = []
    stream.destroy()
    settle({ reason })
    const waiting = [...requests.values()]
    requests.clear()
    for (const answers of waiting) answers.lost(lost)
  }

  function flush() {
    const frames = batch
    batch = []
    const cost = frames.reduce((sum, frame) => sum + frame.length + costOfWrite, 0)
    if (lost || frames.length === 0) return
    queued += cost
    if (queued > maxQueuedBytes) return close('its agent does not read what it is sent')
    stream.cork()
    frames.forEach((frame, i) => {
      stream.write(frame, i === frames.length - 1 ? () => (queued -= cost) : undefined)
    })
    stream.uncork()
  }

  function send(...frames: Uint8Array[]) {
    if (lost) return
    if (batch.length === 0) process.nextTick(flush)
    batch.push(...frames)
  }

  function receive(frame: Frame) {
    if (!greeted) {
      greet(frame)
      greeted = true
      return
    }
    const answers = requests.get(frame.id)
    if (!answers) throw new ProtocolBreach(`an answer of type ${frame.type} to a request that is not open`)
    // Only then, so that one whose last answer is a breach is told too.
    if (deliver(frame, answers)) requests.delete(frame.id)
  }

  const read = frameReader()
  stream.on('data', (chunk: Buffer) => {
    try {
      for (const frame of read(chunk)) {
        if (lost) return
        receive(frame)
      }
    } catch (error) {
      if (!(error instanceof ProtocolBreach)) throw error
      close(`its agent broke the protocol: ${error.message}`)
    }
  })
  stream.on('error', (error) => close(`the connection to its agent failed: ${error.message}`))
  stream.on('end', () => close('its agent ended the connection'))
  stream.on('close', () => close('the connection to its agent was closed'))
  send(encodeFrame(frameType.hello, 0, [4, protocolVersion]))

  return {
    open(answers) {
      if (lost) {
        const error = lost
        process.nextTick(() => answers.lost(error))
        return 0
      }
      do lastId = (lastId + 1) >>> 0
      while (lastId === 0 || requests.has(lastId))
      requests.set(lastId, answers)
      return lastId
    },
    send,
    isOpen: (id) => requests.has(id),
    close,
    gone,
  }
}

function greet({ type, id, payload }: Frame) {
  if (type !== frameType.hello || id !== 0 || payload.length !== 4) throw new ProtocolBreach('no hello came first')
  const version = payload.readUInt32BE(0)
  if (version !== protocolVersion) throw new ProtocolBreach(`it speaks version ${version}, not ${protocolVersion}`)
}

/** @returns whether it was the last answer */
function deliver({ type, payload }: Frame, answers: Answers): boolean {
  const { length } = payload
  const first = length > 0 ? payload.readUInt8(0) : 0
  if (type === frameType.data && answers.data && length > 1) {
    answers.data(first, payload.subarray(1))
  } else if (type === frameType.end && answers.end && length === 1) {
    answers.end(first)
  } else if (type === frameType.credit && answers.credit && length === 5 && first === 0) {
    answers.credit(payload.readUInt32BE(1))
  } else if (type === frameType.opened && answers.opened) {
    answers.opened(payload)
  } else if (type === frameType.done && answers.done && length === 0) {
    answers.done()
    return true
  } else if (type === frameType.exit && answers.exit && length === 2) {
    answers.exit(exitOf(first, payload.readUInt8(1)))
    return true
  } else if (type === frameType.error && length > 0 && length <= 200) {
    answers.error(first, printable(payload.subarray(1)))
    return true
  } else {
    throw new ProtocolBreach(`an answer of type ${type}, ${length} bytes long, to ${answers.name}`)
  }
  return false
}

function exitOf(killed: number, value: number): ExitStatus {
  if (killed === 0) return { exitCode: value }
  if (killed > 1 || value < 1 || value > 64) throw new ProtocolBreach(`a death by signal ${value}`)
  return { signalNumber: value }
}

// It ends up in messages and logs: no control characters, no terminal sequences.
function printable(text: Buffer): string {
  return text.toString('latin1').replace(/[^\x20-\x7e]/g, '?')
}
