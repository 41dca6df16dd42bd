import { isWithin, refusalOf } from '@paws/addresses'
import ipaddr from 'ipaddr.js'
import { ApiError } from '../errors.ts'

/** Names that lead to this machine or into its network, by themselves or by what follows the last dots. */
const localNames = ['localhost', 'local', 'internal', 'intranet', 'lan', 'home', 'home.arpa', 'corp']

/** The address that stands in a URL in place of a name, if one does. */
export function literalAddress(url: URL): string | undefined {
  const host = url.hostname.replace(/^\[|\]$/g, '')
  return ipaddr.isValid(host) ? host : undefined
}

/**
 * Refuses the URL of a callback that could not be delivered: public https only, without user and password. What its
 * name leads to is looked at again at every delivery, on the address that is dialled.
 *
 * @param allow ranges that the operator has opened, to plain http as well
 * @throws VALIDATION_ERROR with the reason
 */
export function vetUrl(text: string, allow: string[]): URL {
  const url = URL.parse(text)
  if (!url) throw refuse('It is not a URL')
  if (url.username || url.password) throw refuse('It must not hold a user or password')
  const address = literalAddress(url)
  const opened = address ? isWithin(address, allow) : allow.length > 0
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && opened)) throw refuse('It must begin with https://')
  const refusal = address ? refusalOf(address, allow) : opened ? undefined : refusalOfName(url.hostname)
  if (refusal) throw refuse(refusal)
  return url
}

function refusalOfName(hostname: string): string | undefined {
  const name = hostname.replace(/\.$/, '').toLowerCase()
  const isLocal = !name.includes('.') || localNames.some((local) => name === local || name.endsWith(`.${local}`))
  return isLocal ? `"${hostname}" is not a public name` : undefined
}

const refuse = (message: string) =>
  new ApiError('VALIDATION_ERROR', `The callbackUrl can't be delivered to: ${message}`, {
    details: [{ path: 'callbackUrl', message }],
  })
