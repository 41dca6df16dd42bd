import type { SnapshotManifest } from '@paws/api'
import type { Transaction } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import type { BuildRow } from './build.ts'

/**
 * Sees that what a worker has stored is what it was told to build: of this id, this template or organization, in this
 * version of its base.
 *
 * @throws CONFLICT, naming what differs
 */
export function assertFits(manifest: SnapshotManifest, build: BuildRow): void {
  const facts: [name: string, found: string | undefined, wanted: string | null][] = [
    ['id', manifest.id, build.snapshotId],
    ['template', manifest.template?.id, build.template],
    ['organization', manifest.config?.organization, build.orgId],
    ['base', manifest.base, build.baseDigest],
  ]
  for (const [name, found, wanted] of facts) {
    if ((found ?? null) === wanted) continue
    const told = `"${build.jobId}" was claimed with ${wanted ?? 'none'}`
    throw new ApiError('CONFLICT', `The manifest names ${found ?? 'none'} as ${name}, and ${told}`)
  }
}

/** @throws CONFLICT when somebody else's build has produced it: its files are for that organization alone */
export async function assertOfOwn(trx: Transaction, { jobId, orgId }: BuildRow, digest: string): Promise<void> {
  const other = await trx
    .selectFrom('builds')
    .select('jobId')
    .where('digest', '=', digest)
    .where('orgId', 'is distinct from', orgId)
    .limit(1)
    .executeTakeFirst()
  if (!other) return
  throw new ApiError('CONFLICT', `${digest} is what another organization's build has made, and not "${jobId}"`)
}
