import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import ipaddr from 'ipaddr.js'
import { z } from 'zod'

/** Leases outlast a control plane's restart of a minute, twice; shorter ones lose running sessions. */
const shortestLeaseMs = 120_000

const number = (from: number, to: number) =>
  z
    .string()
    .regex(/^\d+$/, `must be a whole number from ${from} to ${to}`)
    .transform(Number)
    .refine((value) => value >= from && value <= to, `must be a whole number from ${from} to ${to}`)

const cidrs = z.string().transform((text, context) => {
  const ranges = text.split(',').map((range) => range.trim())
  for (const range of ranges.filter(Boolean)) {
    if (!ipaddr.isValidCIDR(range))
      context.addIssue(`must be a list like 127.0.0.0/8,::1/128; "${range}" is not a range`)
  }
  return ranges.filter(Boolean)
})

const certificates = z.string().transform((file, context) => {
  try {
    const found = readFileSync(file, 'utf8').match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
    for (const certificate of found) new X509Certificate(certificate)
    if (found.length === 0) context.addIssue(`must be a file of certificates, PEM: ${file} has none`)
    return [...found]
  } catch (error) {
    context.addIssue(`can't be read as certificates, PEM: ${(error as Error).message}`)
    return []
  }
})

const Environment = z.object({
  DATABASE_URL: z
    .string('must be a URL like postgres://user:password@host:5432/paws')
    .regex(/^postgres(ql)?:\/\//, 'must be a URL like postgres://user:password@host:5432/paws'),
  HOST: z.string().min(1).default('127.0.0.1'),
  PORT: number(0, 65_535).default(8080),
  PAWS_DATA: z.string().min(1).default(defaultDataFolder()),
  PAWS_MASTER_KEY: z.string().min(1).optional(),
  PAWS_BOOTSTRAP_KEY_FILE: z.string().min(1).optional(),
  PAWS_LEASE_MS: number(100, 86_400_000).default(150_000),
  PAWS_UNSAFE_SHORT_LEASES: z.enum(['0', '1']).default('0'),
  PAWS_QUEUE_LIMIT: number(1, 10_000_000).default(10_000),
  PAWS_DELIVERY_ALLOW: cidrs.default([]),
  PAWS_EGRESS_EXTRA_CA: certificates.default([]),
  PAWS_BLOBS: z.string().min(1).optional(),
  PAWS_LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('info'),
})

/** What an operator has set, checked; see docs/settings.md */
export interface Config {
  databaseUrl: string
  host: string
  /** 0 takes a free one */
  port: number
  /** Folder of what isn't in the database: the master key, and blobs unless they are elsewhere */
  dataFolder: string
  /** Instead of what `<data>/master.key` holds: 32 bytes as base64 or hex, or several of these, the newest first */
  masterKeys: string | undefined
  /** Where the first API key is written, once, when no organization exists yet */
  bootstrapKeyFile: string | undefined
  leaseMs: number
  /** Most pending sessions of one organization */
  queueLimit: number
  /** Ranges that callbacks may go to although they aren't public */
  deliveryAllow: string[]
  /** Certificates, PEM, trusted for callbacks beside those that Node brings */
  extraCa: string[]
  /** A folder, or `s3://bucket/prefix?endpoint=…` */
  blobs: string
  logLevel: string
}

/**
 * Reads the settings from the environment.
 *
 * @throws one error that names every variable that is wrong, and how
 */
export function readConfig(environment: NodeJS.ProcessEnv = process.env): Config {
  // An empty variable means an unset one, as everywhere in shells and compose files.
  const set = Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== ''))
  const parsed = Environment.safeParse(set)
  if (!parsed.success) {
    const wrong = parsed.error.issues.map((issue) =>
      set[String(issue.path[0])] === undefined
        ? `${String(issue.path[0])} is not set: it ${issue.message}`
        : `${String(issue.path[0])} ${issue.message}`,
    )
    throw new Error(`Settings are wrong:\n${wrong.join('\n')}`)
  }
  const env = parsed.data
  if (env.PAWS_LEASE_MS <= shortestLeaseMs && env.PAWS_UNSAFE_SHORT_LEASES !== '1') {
    throw new Error(
      `Settings are wrong:\nPAWS_LEASE_MS must be more than ${shortestLeaseMs}: running sessions outlive a restart by it`,
    )
  }
  return {
    databaseUrl: env.DATABASE_URL,
    host: env.HOST,
    port: env.PORT,
    dataFolder: env.PAWS_DATA,
    masterKeys: env.PAWS_MASTER_KEY,
    bootstrapKeyFile: env.PAWS_BOOTSTRAP_KEY_FILE,
    leaseMs: env.PAWS_LEASE_MS,
    queueLimit: env.PAWS_QUEUE_LIMIT,
    deliveryAllow: env.PAWS_DELIVERY_ALLOW,
    extraCa: env.PAWS_EGRESS_EXTRA_CA,
    blobs: env.PAWS_BLOBS ?? join(env.PAWS_DATA, 'blobs'),
    logLevel: env.PAWS_LOG_LEVEL,
  }
}

function defaultDataFolder(): string {
  return process.getuid?.() === 0 ? '/var/lib/paws' : join(homedir(), '.local/share/paws')
}
