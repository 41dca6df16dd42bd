import type { Socket as DatagramSocket } from 'node:dgram'
import type { Socket } from 'node:net'
import { decode, encode, type RecordType } from 'dns-packet'

/** What a name leads to in this sandbox: its made-up address, nothing, or that there is no such name. */
export type Resolution = { address: string } | 'no-such-name'
export type Resolve = (name: string) => Resolution | Promise<Resolution>

const HEADER_BYTES = 12
/** A question is a name of at most 255 bytes, and a little around it. */
const MOST_BYTES = 2048
/** Answers stay true as long as the sandbox does; clients look again when the rules have changed. */
const TTL_SECONDS = 60
const IDLE_MS = 10_000

const RECURSION_DESIRED = 1 << 8
const RECURSION_AVAILABLE = 1 << 7
const NAME_ERROR = 3

/**
 * Answers one question. Nothing is ever asked elsewhere, so nothing can be said by asking. For a name that isn't allowed
 * there is no such name: that ends a client's search at once, where a refusal would make it ask again.
 *
 * @returns undefined for what isn't one well-formed question: that gets no answer
 */
export async function answer(message: Buffer, resolve: Resolve): Promise<Buffer | undefined> {
  const query = readQuestion(message)
  if (!query) return undefined
  const { id, flags, question } = query
  const resolution = await resolve(question.name)
  const isAnswered = resolution !== 'no-such-name' && question.type === 'A' && question.class === 'IN'
  try {
    return encode({
      type: 'response',
      id,
      flags: (flags & RECURSION_DESIRED) | RECURSION_AVAILABLE | (resolution === 'no-such-name' ? NAME_ERROR : 0),
      questions: [question],
      answers: isAnswered ? [{ type: 'A', name: question.name, ttl: TTL_SECONDS, data: resolution.address }] : [],
    })
  } catch {
    // A name that can't be written the way it was read: whoever sent it wants no answer.
    return undefined
  }
}

interface Question {
  name: string
  type: RecordType
  class?: 'IN'
}

function readQuestion(message: Buffer): { id: number; flags: number; question: Question } | undefined {
  if (message.length <= HEADER_BYTES || message.length > MOST_BYTES) return undefined
  const flags = message.readUInt16BE(2)
  const isQuery = flags >> 11 === 0
  if (!isQuery || message.readUInt16BE(4) !== 1) return undefined
  // What follows the question is left unread: options that change nothing here, or work for nothing.
  const alone = Buffer.from(message)
  alone.fill(0, 6, HEADER_BYTES)
  try {
    const { id, questions } = decode(alone)
    const question = questions?.[0] as Question | undefined
    return question && { id: id ?? 0, flags, question }
  } catch {
    // Malformed: not for us to say more.
    return undefined
  }
}

/** @param isBusy says when questions are let fall: nothing holds back who sends them, and clients ask again */
export function serveDatagrams(socket: DatagramSocket, resolve: Resolve, isBusy: () => boolean): void {
  socket.on('message', (message, from) => {
    if (isBusy()) return
    void answer(message, resolve).then((reply) => {
      if (reply) send(socket, reply, from.port, from.address)
    })
  })
}

function send(socket: DatagramSocket, reply: Buffer, port: number, address: string): void {
  try {
    // An error here (port 0, say) is the sender's loss: a listener takes it, so that it isn't thrown.
    socket.send(reply, port, address, () => undefined)
  } catch {
    // The socket was closed with its sandbox while the answer was thought of, or the sender's port is none.
  }
}

/** Questions over TCP, each after its length in two bytes, answered one after the other. */
export function serveStream(socket: Socket, resolve: Resolve): void {
  socket.setTimeout(IDLE_MS, () => socket.destroy())
  void converse(socket, resolve).catch(() => {
    // The client went away; there is nobody to tell.
    socket.destroy()
  })
}

async function converse(socket: Socket, resolve: Resolve): Promise<void> {
  let rest: Buffer = Buffer.alloc(0)
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    while (rest.length >= 2) {
      const length = rest.readUInt16BE(0)
      if (length > MOST_BYTES) return void socket.destroy()
      if (rest.length < 2 + length) break
      const reply = await answer(rest.subarray(2, 2 + length), resolve)
      rest = rest.subarray(2 + length)
      if (!reply) return void socket.destroy()
      const prefix = Buffer.alloc(2)
      prefix.writeUInt16BE(reply.length)
      if (!socket.write(Buffer.concat([prefix, reply]))) await drained(socket)
    }
  }
  socket.end()
}

const drained = (socket: Socket) =>
  new Promise<void>((resolve) => {
    socket.once('drain', resolve).once('close', () => resolve())
  })
