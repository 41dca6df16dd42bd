import { type Credential, folded } from './policy.ts'
import { swapHeader } from './scrub/index.ts'

/** Between two neighbours only, and what undici sends itself. */
const hopByHop = new Set(
  (
    'connection keep-alive proxy-connection proxy-authorization te trailer transfer-encoding upgrade http2-settings ' +
    'expect host'
  ).split(' '),
)

/**
 * Signs in at one host or another. Where the session's own credential is added none of them goes out beside it: a key that
 * somebody slipped to an agent would let it act, or leave data, under an account that isn't its owner's. A cookie is a
 * sign-in like the others.
 */
const signsIn = new Set(
  (
    'authorization cookie x-api-key api-key apikey x-goog-api-key x-auth-token x-auth-key x-access-token ' +
    'private-token job-token x-amz-security-token x-functions-key ocp-apim-subscription-key x-github-token ' +
    'x-vault-token dd-api-key x-goog-iam-authorization-token'
  ).split(' '),
)

/** Makes of a request another one, for servers that heed it: what a credential is limited to would not hold. */
const overrides = new Set(
  'x-http-method-override x-http-method x-method-override x-original-url x-rewrite-url'.split(' '),
)

/** Would have an answer in pieces that can't be searched, or compressed. */
const hidesAnswer = new Set(['range', 'if-range', 'accept-encoding'])

export interface Sending {
  name: string
  /** The host has a credential, so its answers are searched */
  searched: boolean
  /** It applies to this request */
  credential?: Credential
  git: boolean
  /** The body will not have the length that was announced */
  dropLength: boolean
  /** The body has been unpacked */
  dropEncoding: boolean
}

/**
 * The headers to send, of those that came.
 *
 * @param headers name, value, name, value, …
 */
export function sentHeaders(headers: string[], sending: Sending): string[] {
  const { name: hostName, searched, credential, git, dropLength, dropEncoding } = sending
  const named = namedByConnection(headers)
  const injects = credential !== undefined && credential.headers.length > 0
  const sent: string[] = ['host', hostName]
  for (let at = 0; at < headers.length; at += 2) {
    const name = headers[at] as string
    const foldedName = folded(name)
    if (hopByHop.has(foldedName) || named?.has(foldedName)) continue
    if (searched && hidesAnswer.has(foldedName)) continue
    if (dropLength && foldedName === 'content-length') continue
    if (dropEncoding && foldedName === 'content-encoding') continue
    const came = headers[at + 1] as string
    const value = credential && !credential.placeholders.none ? swapHeader(credential.placeholders, came) : came
    if (credential && overrides.has(foldedName)) continue
    if (injects) {
      if (credential.headers.some((header) => header.folded === foldedName)) continue
      // One that holds a placeholder was meant to sign in by the session's own credential.
      if (signsIn.has(foldedName) && value === came) continue
    }
    sent.push(name, value)
  }
  if (searched) sent.push('accept-encoding', 'identity')
  if (injects) {
    for (const { name, value, gitValue } of credential.headers) sent.push(name, git ? (gitValue ?? value) : value)
  }
  return sent
}

function namedByConnection(headers: string[]): Set<string> | undefined {
  let named: Set<string> | undefined
  for (let at = 0; at < headers.length; at += 2) {
    const name = headers[at] as string
    if (name.length !== 10 || name.toLowerCase() !== 'connection') continue
    for (const token of folded(headers[at + 1] as string).split(',')) {
      const trimmed = token.trim()
      // Nobody can have these taken away by it: they frame the body.
      if (trimmed === 'content-length' || trimmed === 'close' || trimmed === 'keep-alive') continue
      named ??= new Set()
      named.add(trimmed)
    }
  }
  return named
}

/** Whether git, or its large files, speak here: they sign in by name and password. */
export function isGit(path: string, query: string): boolean {
  if (path.endsWith('/git-upload-pack') || path.endsWith('/git-receive-pack')) return true
  if (path.endsWith('/info/refs')) return /[?&]service=git-(?:upload|receive)-pack(?:&|$)/.test(query)
  return path.includes('.git/info/lfs/')
}
