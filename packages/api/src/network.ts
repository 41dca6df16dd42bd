import { Timestamp } from './common.ts'
import { z } from './zod.ts'

/** What may leave a sandbox, and what is added to it on the way. */

/** Names that stand for hosts which the worker's own machine is configured with, so that nobody has to know them. */
export const presets = {
  npm: 'The registry that npm is set to',
  debian: 'The mirrors that apt is set to',
  pypi: 'The index that pip is set to',
} as const
export type Preset = keyof typeof presets

const label = '[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?'
const hostName = new RegExp(`^(?=.{1,253}$)(?:${label}\\.)+(?!\\d+$)${label}$`)
const wildcard = new RegExp(`^\\*\\.(?=.{1,251}$)(?:${label}\\.)+(?!\\d+$)${label}$`)
const lowerCase = (text: string) => text.toLowerCase()

const nameRemedy = 'give a name like api.example.com: no scheme, port, path or address; other scripts as xn--…'
const patternRemedy = `${nameRemedy}; *.example.com stands for all its sub-domains`
const isPattern = (text: string) => hostName.test(text) || wildcard.test(text)

/** One host, by its exact name. */
export const HostName = z
  .string()
  .transform(lowerCase)
  .pipe(z.string().regex(hostName, `Not the name of a host: ${nameRemedy}`))
  .openapi({ type: 'string', example: 'api.example.com' })

/** A host, or all sub-domains of one. */
export const HostPattern = z
  .string()
  .transform(lowerCase)
  .pipe(z.string().refine(isPattern, `Not the name of a host: ${patternRemedy}`))
  .openapi({ type: 'string', example: 'api.example.com' })

/** A host, all sub-domains of one, or a preset. */
export const AllowedHost = z
  .string()
  .transform(lowerCase)
  .pipe(
    z.string().refine((text) => isPattern(text) || isPreset(text), {
      error: (issue) =>
        String(issue.input).startsWith('preset:')
          ? `No such preset: there are ${Object.keys(presets)
              .map((name) => `preset:${name}`)
              .join(', ')}`
          : `Not the name of a host: ${patternRemedy}`,
    }),
  )
  .openapi({ type: 'string', example: '*.example.com' })

export function isPreset(text: string): text is `preset:${Preset}` {
  return text.startsWith('preset:') && Object.hasOwn(presets, text.slice('preset:'.length))
}

export const AllowedHosts = z
  .array(AllowedHost)
  .max(500)
  .default([])
  .openapi({
    description:
      'Hosts that may be reached on ports 80 and 443: names, `*.example.com` for sub-domains only, or presets ' +
      `(${Object.entries(presets)
        .map(([name, what]) => `\`preset:${name}\`: ${what.toLowerCase()}`)
        .join('; ')}). Empty: none`,
  })

export const secretName = /^[A-Za-z][A-Za-z0-9_.-]{0,99}$/

/** One line, as a header can hold it. */
export const Line = z
  .string()
  .min(1)
  .max(16_384)
  .regex(/^[\t\x20-\x7e\x80-\xff]*$/, 'Must be one line of characters that a header can hold')

/** A value itself, or the name of a stored one. */
const SecretValue = z.union(
  [
    Line,
    z.strictObject({
      secret: z.string().regex(secretName, 'Must be the name of a stored secret'),
      prefix: Line.max(100).optional().openapi({ description: 'Put before it', example: 'Bearer ' }),
    }),
  ],
  { error: 'Must be a text, or the name of a stored secret as {"secret": NAME}' },
)

const HeaderName = z
  .string()
  .max(100)
  .regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/, 'Not the name of a header')
  .refine((name) => !notForInjection.has(name.toLowerCase()), 'This header belongs to the connection, not to you')

/** What frames a request or says where it goes. */
const notForInjection = new Set(
  'host content-length transfer-encoding connection keep-alive upgrade te trailer expect proxy-connection'.split(' '),
)

/** Refuses names that differ in case only: which of them counts would be chance. */
const apart = (what: string) => (values: object, context: z.core.$RefinementCtx) => {
  const seen = new Set<string>()
  for (const name of Object.keys(values)) {
    const lower = name.toLowerCase()
    if (seen.has(lower)) context.addIssue({ code: 'custom', path: [name], message: `${what} is named twice` })
    seen.add(lower)
  }
}

/** The same ahead of names becoming lower case, when they would be one. */
const apartBefore = (what: string) => (values: unknown, context: z.core.$RefinementCtx) => {
  if (typeof values === 'object' && values !== null) apart(what)(values, context)
  return values
}

const EnvName = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,99}$/, 'Must be the name of an environment variable')

export const HostCredential = z
  .strictObject({
    headers: z
      .record(HeaderName, SecretValue)
      .superRefine(apart('A header'))
      .default({})
      .openapi({
        description:
          'Set on each request to this host, over verified TLS only; what the client sent under these names, or as ' +
          'other credentials, is taken away',
      }),
    placeholders: z
      .record(EnvName, SecretValue)
      .default({})
      .openapi({
        description:
          'Environment variables that get a made-up value inside; on the way to this host it becomes the real one, in ' +
          'path, query, headers and body',
      }),
    paths: z
      .array(
        z
          .string()
          .max(1000)
          .regex(/^\/[^?#]*$/, 'Must begin with "/" and hold no query'),
      )
      .max(100)
      .optional()
      .openapi({ description: 'Only to these paths; `*` stands for anything', example: ['/v1/*'] }),
    methods: z
      .array(z.string().regex(/^[A-Z]{1,20}$/, 'Must be a method like "GET"'))
      .max(20)
      .optional(),
  })
  .refine(({ headers, placeholders }) => Object.keys(headers).length + Object.keys(placeholders).length > 0, {
    error: 'Names neither a header nor a placeholder',
  })
  .openapi('HostCredential')

export const Network = z
  .strictObject({
    allowOut: AllowedHosts,
    credentials: z
      .preprocess(apartBefore('A host'), z.record(HostName, HostCredential))
      .default({})
      .openapi({
        description:
          'By host; a host named here may be reached. A name has no sub-domains: api.github.com is not github.com. ' +
          'At most 200 values, and 64 KiB of them, in a session',
      }),
    auditLog: z
      .boolean()
      .default(false)
      .openapi({ description: 'Record every outgoing request, not only refused ones: GET /v1/sessions/{id}/egress' }),
  })
  .openapi('Network')

/** The same as it is read back. */
export const NetworkShown = z
  .object({
    allowOut: z.array(z.string()),
    credentials: z.record(
      z.string(),
      z.object({
        headers: z.record(z.string(), z.literal('***')),
        placeholders: z.record(z.string(), z.literal('***')),
        paths: z.array(z.string()).optional(),
        methods: z.array(z.string()).optional(),
      }),
    ),
    auditLog: z.boolean(),
  })
  .openapi('NetworkShown')

/** The same as the one worker gets it that has claimed the session, with the values. */
export const EgressRules = z.object({
  allowOut: z.array(z.string()),
  credentials: z.record(
    z.string(),
    z.object({
      headers: z.record(z.string(), z.string()),
      placeholders: z.record(z.string(), z.string()),
      paths: z.array(z.string()).optional(),
      methods: z.array(z.string()).optional(),
    }),
  ),
  auditLog: z.boolean(),
})
export type EgressRules = z.output<typeof EgressRules>

/** Why something did not get out, or its answer not in. */
export const egressReasons = {
  'name-not-allowed': 'The name is not in allowOut',
  'address-not-pinned': 'An address was dialled that no allowed name has been given',
  'sni-missing': 'The TLS handshake named no host',
  'sni-address-mismatch': 'The TLS handshake named another host than the one that has this address',
  'sni-host-mismatch': 'Host or :authority named another host than the TLS handshake',
  'host-address-mismatch': 'Host named another host than the one that has this address',
  'host-malformed': 'Host was missing, repeated or no name',
  'not-tls': 'What came on port 443 was not TLS',
  'tls-failed': 'The TLS handshake with the client failed',
  'request-malformed': 'What came was not well-formed HTTP, or could be read in two ways',
  'method-refused': 'CONNECT and TRACE are not forwarded',
  'upgrade-refused': 'Only WebSocket is forwarded',
  'path-ambiguous': 'The path could be read in two ways, and a credential depends on it',
  'address-not-public': 'The name led to an address that is not public',
  'name-not-resolved': 'The name led nowhere',
  'upstream-certificate': "The host's certificate did not prove that it is this host",
  'upstream-unreachable': 'The host could not be reached, or broke off',
  'encoding-unknown': 'The answer was compressed in a way that can not be searched for secrets',
  'too-many-names': 'The sandbox has asked for too many names',
  'too-many-connections': 'The sandbox holds too many connections',
  'rules-changed': 'It was let out, and the rules then changed',
} as const
export type EgressReason = keyof typeof egressReasons

/** One request that a sandbox sent, or one attempt that got no further. Never a value of a credential. */
export const EgressRecord = z
  .object({
    at: Timestamp,
    decision: z.enum(['allowed', 'refused']),
    reason: z
      .enum(Object.keys(egressReasons) as [EgressReason, ...EgressReason[]])
      .optional()
      .openapi({ description: 'Why it was refused, or why an allowed one got no answer' }),
    port: z.int().openapi({ description: '80, 443, or 53 for a name that was asked for' }),
    host: z.string().max(300).optional(),
    method: z.string().max(50).optional(),
    path: z.string().max(2000).optional().openapi({ description: 'Without its query' }),
    status: z.int().optional().openapi({ description: 'What the sandbox was answered' }),
    requestBytes: z.int().nonnegative().optional().openapi({ description: 'Of the body' }),
    responseBytes: z.int().nonnegative().optional().openapi({ description: 'Of the body, as it came' }),
    durationMs: z.number().nonnegative().optional(),
    credential: z.boolean().optional().openapi({ description: "Whether the host's credential was added" }),
  })
  .openapi('EgressRecord')
export type EgressRecord = z.output<typeof EgressRecord>
