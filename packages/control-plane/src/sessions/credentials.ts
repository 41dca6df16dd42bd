import type { EgressRules, Network, NetworkShown } from '@paws/api'
import type { z } from 'zod'
import type { Database, Transaction } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { type OpenedSecret, openSecrets } from '../secrets/index.ts'
import type { SealedColumn, Vault } from '../vault/index.ts'

type NetworkWish = z.output<typeof Network>
type Shown = z.output<typeof NetworkShown>
type Given = NetworkWish['credentials'][string]['headers'][string]

/** The values of a session's credentials, by host: what is sealed. */
export type Values = Record<string, { headers: Record<string, string>; placeholders: Record<string, string> }>

const context = (sessionId: string) => `sessions/${sessionId}/secrets`

export const sealedSessionSecrets: SealedColumn = {
  table: 'sessions',
  column: 'sealedSecrets',
  key: ['id'],
  context: ({ id = '' }) => context(id),
}

/**
 * Most bytes and number of all values of a session together, one that is named often as often: each answer is searched
 * for all of them, by a process that other sessions share.
 */
const mostValueBytes = 64 * 1024
const mostValues = 200
/** Longest form of a network as it is shown, in bytes: lists show up to 200 of them. */
const mostShownBytes = 128 * 1024
/** What a header can hold: the contract asks it of values that are given, and here it is asked of stored ones. */
const line = /^[\t\x20-\x7e\x80-\xff]*$/

/**
 * Puts the values of stored secrets in the place of their names.
 *
 * @returns what is shown of the network, and the values if there are any
 * @throws VALIDATION_ERROR for a stored secret that isn't there, isn't for that host or can't stand in a header, or for
 * too many
 */
export async function resolveNetwork(
  db: Database,
  vault: Vault,
  orgId: string,
  network: NetworkWish,
): Promise<{ shown: Shown; values: Values | null }> {
  const { credentials } = network
  const shown = { ...network, credentials: mapValues(credentials, hide) }
  if (Buffer.byteLength(JSON.stringify(shown)) > mostShownBytes) {
    throw refuse('network', `Longer than ${mostShownBytes / 1024} KB as JSON, values not counted: name fewer hosts`)
  }
  const given = Object.values(credentials).flatMap((each) => Object.values({ ...each.headers, ...each.placeholders }))
  if (given.length === 0) return { shown, values: null }
  if (given.length > mostValues) {
    throw refuse('network.credentials', `Has ${given.length} values, and may have ${mostValues}: name fewer`)
  }
  const names = given.flatMap((value) => (typeof value === 'string' ? [] : [value.secret]))
  const stored = await openSecrets(db, vault, orgId, [...new Set(names)])
  let total = 0
  const textsOf = (record: Record<string, Given>, host: string, kind: 'headers' | 'placeholders') =>
    mapValues(record, (value, name) => {
      const text = textOf(value, stored, host, `network.credentials.${host}.${kind}.${name}`)
      total += Buffer.byteLength(text)
      if (total > mostValueBytes) {
        throw refuse(
          'network.credentials',
          `All values together are longer than ${mostValueBytes / 1024} KiB: name fewer`,
        )
      }
      return text
    })
  const values = mapValues(credentials, ({ headers, placeholders }, host) => ({
    headers: textsOf(headers, host, 'headers'),
    placeholders: textsOf(placeholders, host, 'placeholders'),
  }))
  refuseTwoMeanings(values)
  return { shown, values }
}

/** The rules of a session that was claimed, with its values; @throws when they can't be opened */
export async function openRules(
  db: Database,
  vault: Vault,
  session: { id: string; orgId: string; network: string; sealedSecrets: Buffer | null },
): Promise<EgressRules> {
  const network = JSON.parse(session.network) as Shown
  if (!session.sealedSecrets) return { ...network, credentials: {} }
  const again = async () => {
    const query = db.selectFrom('sessions').select('sealedSecrets').where('id', '=', session.id)
    return (await query.executeTakeFirst())?.sealedSecrets
  }
  const opened = await vault.open(db, session.orgId, context(session.id), session.sealedSecrets, again)
  const values = JSON.parse(opened.toString()) as Values
  const none = { headers: {}, placeholders: {} }
  return {
    ...network,
    credentials: mapValues(network.credentials, (rule, host) => ({ ...rule, ...none, ...values[host] })),
  }
}

/** What stands in the row, bound to it. */
export function sealValues(trx: Transaction, vault: Vault, orgId: string, sessionId: string, values: Values) {
  return vault.seal(trx, orgId, context(sessionId), Buffer.from(JSON.stringify(values)))
}

function hide({ headers, placeholders, ...rest }: NetworkWish['credentials'][string]) {
  const stars = () => '***' as const
  return { headers: mapValues(headers, stars), placeholders: mapValues(placeholders, stars), ...rest }
}

function textOf(value: Given, stored: Map<string, OpenedSecret>, host: string, path: string): string {
  if (typeof value === 'string') return value
  const { secret, prefix = '' } = value
  const found = stored.get(secret)
  if (found === undefined) {
    throw refuse(
      `${path}.secret`,
      `Stored secret "${secret}" does not exist: store it by "paws secrets set ${secret}" or PUT /v1/secrets/${secret}`,
    )
  }
  if (!found.isFor(host)) {
    const remedy = `GET /v1/secrets shows its hosts, and PUT /v1/secrets/${secret} stores it with others`
    throw refuse(`${path}.secret`, `Stored secret "${secret}" is bound to hosts that ${host} is none of: ${remedy}`)
  }
  if (!line.test(found.value)) {
    throw refuse(`${path}.secret`, `Stored secret "${secret}" is not one line of characters that a header can hold`)
  }
  return prefix + found.value
}

// Inside there is one environment for all hosts, and a variable of it has one value.
function refuseTwoMeanings(values: Values): void {
  const meanings = new Map<string, string>()
  for (const [host, { placeholders }] of Object.entries(values)) {
    for (const [name, value] of Object.entries(placeholders)) {
      if ((meanings.get(name) ?? value) !== value) {
        const message = 'Has another value at another host: give one of them another name'
        throw refuse(`network.credentials.${host}.placeholders.${name}`, message)
      }
      meanings.set(name, value)
    }
  }
}

function mapValues<A, B>(record: Record<string, A>, change: (value: A, name: string) => B): Record<string, B> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, change(value, name)]))
}

const refuse = (path: string, message: string) =>
  new ApiError('VALIDATION_ERROR', `${path}: ${message}`, { details: [{ path, message }] })
