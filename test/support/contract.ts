import { isDeepStrictEqual } from 'node:util'
import { type Endpoint, endpoints, type OperationId } from '@paws/api'
import type { Reply } from '../../packages/control-plane/src/http/index.ts'

/**
 * Holds a reply against its operation's contract: the schema must accept it and know all of it.
 *
 * @throws with what differs, which fails the request and so the test
 */
export function checkAgainstContract(operation: OperationId, reply: Reply): void {
  const endpoint: Endpoint = endpoints[operation]
  const returned = endpoint.returns[reply.status]
  if (!returned) throw new Error(`${operation} answered ${reply.status}, which its contract lacks`)
  const kind = 'kind' in returned ? returned.kind : 'json'
  if (!(replyKinds[kind] in reply)) throw new Error(`${operation} answered with something else than ${kind}`)
  if ('kind' in returned || !('json' in reply)) return
  const sent: unknown = JSON.parse(JSON.stringify(reply.json))
  const parsed = returned.safeParse(sent)
  if (!parsed.success) throw new Error(`${operation} answered what its contract refuses: ${parsed.error.message}`)
  if (!isDeepStrictEqual(parsed.data, sent)) {
    throw new Error(`${operation} answered more than its contract has: ${JSON.stringify(sent)}`)
  }
}

const replyKinds = { json: 'json', empty: 'empty', bytes: 'bytes', events: 'events', websocket: 'upgrade' } as const
