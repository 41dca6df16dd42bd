import { lookup as resolveName } from 'node:dns/promises'
import type { LookupFunction } from 'node:net'
import { getCACertificates } from 'node:tls'
import { isWithin, refusalOf } from '@paws/addresses'
import { Agent, request } from 'undici'
import { literalAddress, vetUrl } from './vet.ts'

/** How long one attempt may take, from dialling to the head of the answer. */
const timeoutMs = 15_000
/** Most of an answer that is read, so that its connection can be used again. */
const answerBytes = 16_384

/** Addresses of a name. */
export type Resolve = (name: string) => Promise<{ address: string; family: number }[]>

export interface PosterOptions {
  /** Ranges that callbacks may go to although they aren't public, by plain http as well */
  allow: string[]
  /** Certificates, PEM, trusted beside those that Node brings */
  extraCa?: string[]
  /** Instead of the system's resolver */
  resolve?: Resolve
}

export interface Poster {
  /**
   * Posts once, following no redirect.
   *
   * @returns the status of the answer
   * @throws with the reason: an address that isn't public, no connection, no answer in time
   */
  post(url: string, headers: Record<string, string>, body: string): Promise<number>
  close(): Promise<void>
}

/** Opens what posts callbacks. Names are resolved here, and what is dialled is the very address that was vetted. */
export function openPoster(options: PosterOptions): Poster {
  const { allow, extraCa = [], resolve = (name) => resolveName(name, { all: true }) } = options
  const agents = {
    'https:': agent(
      lookupVetted(resolve, (address) => refusalOf(address, allow)),
      [...getCACertificates('default'), ...extraCa],
    ),
    'http:': agent(lookupVetted(resolve, refuseUnopened), []),
  }

  // In plain text only into what the operator has opened.
  function refuseUnopened(address: string): string | undefined {
    return isWithin(address, allow) ? undefined : `${address} is not opened to plain http`
  }

  return {
    async post(text, headers, body) {
      const url = vetUrl(text, allow)
      const literal = literalAddress(url)
      const refusal = literal && refusalOf(literal, allow)
      if (refusal) throw new Error(refusal)
      const answer = await request(url, {
        method: 'POST',
        headers,
        body,
        dispatcher: agents[url.protocol as keyof typeof agents],
        signal: AbortSignal.timeout(timeoutMs),
      })
      await answer.body.dump({ limit: answerBytes }).catch(() => {
        // The answer's status has come, and that is all that counts; its body may break off.
      })
      return answer.statusCode
    },
    async close() {
      await Promise.all(Object.values(agents).map((one) => one.destroy()))
    },
  }
}

const agent = (lookup: LookupFunction, ca: string[]) =>
  new Agent({
    connect: { lookup, timeout: timeoutMs, ...(ca.length > 0 && { ca }) },
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
  })

/** Every address of a name must be vetted: one that isn't public among them is an attack or a mistake. */
function lookupVetted(resolve: Resolve, refuse: (address: string) => string | undefined): LookupFunction {
  return (hostname, options, callback) => {
    resolve(hostname).then(
      (addresses) => {
        const refusal = addresses.map(({ address }) => refuse(address)).find(Boolean)
        const [first] = addresses
        if (refusal) callback(new Error(`${hostname} leads to ${refusal}`), [])
        else if (!first) callback(new Error(`${hostname} has no address`), [])
        else if (options.all) callback(null, addresses)
        else callback(null, first.address, first.family)
      },
      (error: Error) => callback(error, []),
    )
  }
}
