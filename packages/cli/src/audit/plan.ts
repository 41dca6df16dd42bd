import { randomBytes } from 'node:crypto'
import type { CreateSession } from '@paws/sdk'
import { writtenOut } from './forms.ts'
import type { Place } from './place.ts'
import { sessionScript } from './sow.ts'

/** Made-up values: markers that must be found, and secrets that must not. */
export interface Plan {
  /** Ends the names of what is made for the audit */
  suffix: string
  markers: Record<Place, string>
  secrets: Record<'header' | 'placeholder' | 'stored', string>
}

// Characters that URLs and some JSON write in another way are among them.
const madeUp = (kind: string) => `paws-${kind}/${randomBytes(15).toString('base64url')}+=`

export function makePlan(): Plan {
  const marker = (place: Place) => madeUp(`marker-${place}`)
  return {
    suffix: randomBytes(4).toString('hex'),
    markers: {
      environment: marker('environment'),
      proc: marker('proc'),
      files: marker('files'),
      snapshots: marker('snapshots'),
      blobs: marker('blobs'),
      database: marker('database'),
      logs: marker('logs'),
      api: marker('api'),
      callbacks: marker('callbacks'),
    },
    secrets: { header: madeUp('canary'), placeholder: madeUp('canary'), stored: madeUp('canary') },
  }
}

export const snapshotId = ({ suffix }: Plan) => `paws-audit-${suffix}`
export const failingId = ({ suffix }: Plan) => `paws-audit-${suffix}-fails`
export const secretName = ({ suffix }: Plan) => `paws-audit-${suffix}`

/** The session that uses the secrets, and leaves markers beside them. */
export function sessionOf(plan: Plan, host: string, callbackUrl: string | undefined): CreateSession {
  const { markers, secrets } = plan
  return {
    snapshot: snapshotId(plan),
    workload: {
      type: 'script',
      script: sessionScript({ markers, requests: requestsTo(host) }),
      env: { PAWS_AUDIT_MARKER: writtenOut(markers.environment) },
    },
    timeoutMs: 1_800_000,
    metadata: { audit: writtenOut(markers.api), told: writtenOut(markers.callbacks) },
    callbackUrl,
    network: {
      auditLog: true,
      credentials: {
        [host]: {
          headers: {
            'x-paws-audit': secrets.header,
            authorization: { secret: secretName(plan), prefix: 'Bearer ' },
          },
          placeholders: { PAWS_AUDIT_PLACEHOLDER: secrets.placeholder },
        },
      },
    },
  }
}

/** Each secret in each way that it goes out; and once where none must go, by plain http. */
function requestsTo(host: string): string[] {
  const curl = `curl --silent --show-error --max-time 30`
  const stand = '$PAWS_AUDIT_PLACEHOLDER'
  return [
    `${curl} --include https://${host}/paws-audit`,
    `${curl} --include "https://${host}/paws-audit/${stand}?value=${stand}" --header "x-stand-in: ${stand}"`,
    `${curl} --include https://${host}/paws-audit --json "{\\"value\\":\\"${stand}\\"}"`,
    `${curl} --include --compressed --http1.1 --header "authorization: Bearer mine" https://${host}/paws-audit`,
    `git ls-remote https://${host}/paws-audit.git`,
    `${curl} --include http://${host}/paws-audit`,
  ]
}
