import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { type Answer, decode, encode, type Packet, type RecordType } from 'dns-packet'

/** What a name leads to: addresses of both kinds, or another name. */
export type Records = { addresses: string[] } | { alias: string }

export interface NameServer {
  /** `address:port`, for UDP and TCP */
  address: string
  /** Names that were asked for, with the type of record, in order */
  asked: { name: string; type: RecordType }[]
  /**
   * Says what a name leads to. Of several answers each look takes the next, and the last one stays; A and AAAA count
   * as one look each.
   */
  set(name: string, ...looks: (Records | string[])[]): void
  close(): Promise<void>
}

/** A real name server on loopback, whose answers may change from one look to the next. */
export async function openNameServer(): Promise<NameServer> {
  const names = new Map<string, Zone>()
  const asked: NameServer['asked'] = []
  const answer = (packet: Buffer): Buffer => {
    const query = decode(packet)
    const question = query.questions?.[0]
    if (!question) return encode({ ...query, type: 'response' })
    asked.push({ name: question.name, type: question.type })
    return encode(reply(query, names))
  }
  const { udp, tcp, port, connections } = await listen(answer)
  return {
    address: `127.0.0.1:${port}`,
    asked,
    set(name, ...looks) {
      const list = looks.map((look) => (Array.isArray(look) ? { addresses: look } : look))
      names.set(name, { looks: list, seen: { A: 0, AAAA: 0 } })
    },
    async close() {
      udp.close()
      tcp.close()
      for (const connection of connections) connection.destroy()
    },
  }
}

interface Zone {
  looks: Records[]
  seen: { A: number; AAAA: number }
}

function reply(query: Packet, names: Map<string, Zone>): Packet {
  const answers: Answer[] = []
  const question = query.questions?.[0]
  let name = question?.name.toLowerCase() ?? ''
  const type = question?.type
  const known = names.has(name)
  // A chain of aliases is answered whole, as a recursive server does; a circle of them ends.
  for (let steps = 0; (type === 'A' || type === 'AAAA') && steps < 10; steps++) {
    const zone = names.get(name)
    if (!zone) break
    const records = zone.looks[Math.min(zone.seen[type]++, zone.looks.length - 1)]
    if (records && 'alias' in records) {
      answers.push({ type: 'CNAME', name, ttl: 0, data: records.alias })
      name = records.alias
      continue
    }
    const ofType = records?.addresses.filter((address) => address.includes(':') === (type === 'AAAA')) ?? []
    answers.push(...ofType.map((data): Answer => ({ type, name, ttl: 0, data })))
    break
  }
  const rcode = known ? 0 : 3
  const { id, questions } = query
  return { id, type: 'response', flags: 0x0100 | 0x0080 | rcode, questions, answers }
}

/** UDP and TCP on one port. */
async function listen(answer: (packet: Buffer) => Buffer) {
  const udp = createSocket('udp4', (packet, { address, port }) => udp.send(answer(packet), port, address))
  const connections = new Set<Socket>()
  const tcp = createServer((socket) => {
    connections.add(socket.once('close', () => connections.delete(socket)))
    let received = Buffer.alloc(0)
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk])
      while (received.length >= 2 && received.length >= 2 + received.readUInt16BE()) {
        const end = 2 + received.readUInt16BE()
        const packet = answer(received.subarray(2, end))
        received = received.subarray(end)
        socket.write(Buffer.concat([Buffer.from([packet.length >> 8, packet.length & 255]), packet]))
      }
    })
  })
  await once(tcp.listen(0, '127.0.0.1'), 'listening')
  const { port } = tcp.address() as AddressInfo
  await once(udp.bind(port, '127.0.0.1'), 'listening')
  return { udp, tcp, port, connections }
}
