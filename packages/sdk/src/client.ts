import { fleetOf } from './fleet.ts'
import { createHttp, dataOf } from './http.ts'
import { keysOf, organizationsOf } from './organizations.ts'
import { secretsOf } from './secrets.ts'
import { sessionsOf } from './sessions.ts'
import { snapshotsOf } from './snapshots.ts'
import { createTransport, type TransportOptions } from './transport.ts'

export type ClientOptions = TransportOptions
export type PawsClient = ReturnType<typeof createClient>

/**
 * A client of one control plane with one key. Opens nothing, so there is nothing to close.
 *
 * ```ts
 * const paws = createClient({ url: 'http://localhost:8080', apiKey })
 * const session = await paws.sessions.run({ snapshot: 'minimal', workload: { type: 'script', script: 'echo hello' } })
 * console.log(session.stdout)
 * ```
 */
export function createClient(options: ClientOptions) {
  const transport = createTransport(options)
  const http = createHttp(transport)
  return {
    /** Every operation as the OpenAPI document has it, for what has no helper here */
    http,
    sessions: sessionsOf(http, transport),
    secrets: secretsOf(http),
    snapshots: snapshotsOf(http, transport),
    fleet: fleetOf(http),
    organizations: organizationsOf(http),
    keys: keysOf(http),
    whoami: () => dataOf(http.GET('/v1/whoami')),
    /** Whether the control plane is ready, and its version; needs no key */
    ready: () => dataOf(http.GET('/readyz')),
  }
}
