import type { Session, SessionSummary } from '@paws/api'
import type { Selectable } from 'kysely'
import type { z } from 'zod'
import type { DB } from '../database/index.ts'

/** What is read of a session's row, apart from its script and env, which may be long. */
export const sessionColumns = [
  'id',
  'orgId',
  'status',
  'snapshotId',
  'vcpus',
  'memoryMb',
  'diskMb',
  'timeoutMs',
  'callbackUrl',
  'network',
  'metadata',
  'cancelRequestedAt',
  'workerId',
  'workerName',
  'isolation',
  'fence',
  'lastSeq',
  'lastChunk',
  'stdoutBytes',
  'stderrBytes',
  'egressBytes',
  'archivedAt',
  'exitCode',
  'error',
  'output',
  'createdAt',
  'startedAt',
  'completedAt',
  'durationMs',
] as const satisfies (keyof DB['sessions'])[]

export type SessionRow = Pick<Selectable<DB['sessions']>, (typeof sessionColumns)[number]>

/** How much of each stream stands in an answer, in bytes: its end. The rest is at `/logs`. */
export const inlineBytes = 1024 * 1024

/** Whose events these are, in the table of events. */
export const sessionSubject = (sessionId: string) => `session:${sessionId}`

/** A session as lists show it; what has no value yet is left out. */
export function summarize(row: SessionRow): z.input<typeof SessionSummary> {
  const { vcpus, memoryMb: memoryMB, diskMb: diskMB } = row
  return {
    sessionId: row.id,
    status: row.status as z.input<typeof SessionSummary>['status'],
    snapshot: row.snapshotId,
    ...(row.exitCode !== null && { exitCode: row.exitCode }),
    ...(row.error !== null && { error: JSON.parse(row.error) }),
    createdAt: row.createdAt.toISOString(),
    ...(row.startedAt && { startedAt: row.startedAt.toISOString() }),
    ...(row.completedAt && { completedAt: row.completedAt.toISOString() }),
    ...(row.durationMs !== null && {
      durationMs: row.durationMs,
      vcpuSeconds: Math.round(vcpus * row.durationMs) / 1000,
    }),
    ...(row.workerName !== null && { worker: row.workerName }),
    ...(row.isolation !== null && { isolation: row.isolation as z.input<typeof SessionSummary>['isolation'] }),
    ...(row.metadata !== null && { metadata: JSON.parse(row.metadata) }),
    resources: { vcpus, memoryMB, diskMB },
    timeoutMs: row.timeoutMs,
    ...(row.callbackUrl !== null && { callbackUrl: row.callbackUrl }),
    network: JSON.parse(row.network),
  }
}

/** A session with all but its streams, as its last event carries it. */
export function describe(row: SessionRow): Omit<z.input<typeof Session>, 'stdout' | 'stderr'> {
  const truncated = row.stdoutBytes > inlineBytes || row.stderrBytes > inlineBytes
  return {
    ...summarize(row),
    ...(truncated && { truncated }),
    ...(row.output !== null && { output: JSON.parse(row.output) }),
  }
}
