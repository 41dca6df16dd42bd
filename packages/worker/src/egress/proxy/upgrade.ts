import type { IncomingMessage } from 'node:http'
import type { Exchange } from './exchange.ts'
import type { Way } from './forward.ts'

export async function upgrade(_way: Way, exchange: Exchange, _request: IncomingMessage, _head: Buffer): Promise<void> {
  exchange.abort()
}
