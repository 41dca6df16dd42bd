import { once } from 'node:events'
import { duplexPair } from 'node:stream'
import { connect } from 'node:tls'

/** The first bytes of a TLS client that names this host; what no client would send can then be written over them. */
export async function clientHello(servername: string): Promise<Buffer> {
  const [near, far] = duplexPair()
  const client = connect({ socket: near, servername }).on('error', () => client.destroy())
  const [flight] = (await once(far, 'data')) as [Buffer]
  client.destroy()
  return flight
}

/** The same with other bytes in place of the name; as many, so that every length in it stays right. */
export async function clientHelloFor(name: Buffer): Promise<Buffer> {
  const standIn = `${'x'.repeat(name.length - 5)}.test`
  const hello = await clientHello(standIn)
  const at = hello.indexOf(standIn)
  if (at < 0) throw new Error('The handshake does not hold the name')
  name.copy(hello, at)
  return hello
}
