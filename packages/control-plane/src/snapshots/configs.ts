import type { Endpoints, SnapshotConfig } from '@paws/api'
import { type Selectable, sql } from 'kysely'
import type { z } from 'zod'
import type { Database, DB, Transaction } from '../database/index.ts'
import { ApiError } from '../errors.ts'
import { settle } from './report.ts'
import { snapshotNotFound } from './snapshot.ts'
import { isTemplate, knownTemplates } from './templates.ts'

type Shown = z.input<typeof SnapshotConfig>
type Fields = z.output<Endpoints['updateSnapshotConfig']['body']>

/** Most configs of one organization: a list has them all, and each may be a quarter of a megabyte. */
const mostConfigs = 100
const defaultTemplate = 'minimal'

/** @throws CONFLICT when the id is taken; SNAPSHOT_NOT_FOUND when there is no such template */
export async function createConfig(
  db: Database,
  orgId: string,
  config: z.output<Endpoints['createSnapshotConfig']['body']>,
): Promise<Shown> {
  const { id } = config
  if (isTemplate(id)) throw new ApiError('CONFLICT', `"${id}" is a template that paws brings: choose another id`)
  await assertTemplate(db, orgId, config.template)
  const columns = columnsOf(config)
  const { rows } = await sql<ConfigRow>`
    insert into snapshot_configs (org_id, id, template, setup, required_domains, vcpus, memory_mb, disk_mb, isolation_min)
    select ${orgId}, ${id}, ${columns.template}, ${columns.setup}, ${columns.requiredDomains}::text[], ${columns.vcpus},
      ${columns.memoryMb}, ${columns.diskMb}, ${columns.isolationMin}
    where (select count(*) from snapshot_configs where org_id = ${orgId}) < ${mostConfigs}
    on conflict do nothing
    returning *`.execute(db)
  if (rows[0]) return describe(rows[0])
  if (await readConfig(db, orgId, id)) {
    throw new ApiError('CONFLICT', `There is a config "${id}" already: PUT /v1/snapshot-configs/${id} replaces it`)
  }
  throw new ApiError('CONFLICT', `An organization has at most ${mostConfigs} configs: delete one that nobody needs`)
}

export async function listConfigs(db: Database, orgId: string): Promise<Shown[]> {
  const query = db.selectFrom('snapshotConfigs').selectAll().where('orgId', '=', orgId)
  return (await query.orderBy(sql`id collate "C"`).execute()).map(describe)
}

/** @throws SNAPSHOT_NOT_FOUND */
export async function getConfig(db: Database, orgId: string, id: string): Promise<Shown> {
  const row = await readConfig(db, orgId, id)
  if (!row) throw configNotFound(id)
  return describe(row)
}

/**
 * Replaces a config. Neither what was built from it nor a build under way is touched.
 *
 * @throws SNAPSHOT_NOT_FOUND; VALIDATION_ERROR when the body names another id; CONFLICT
 */
export async function updateConfig(db: Database, orgId: string, id: string, fields: Fields): Promise<Shown> {
  if (fields.id !== undefined && fields.id !== id) {
    const message = `Must be "${id}", as in the path, or be left out: a config keeps its id`
    throw new ApiError('VALIDATION_ERROR', `id: ${message}`, { details: [{ path: 'id', message }] })
  }
  if (!(await readConfig(db, orgId, id))) throw configNotFound(id)
  await assertTemplate(db, orgId, fields.template)
  const row = await db
    .updateTable('snapshotConfigs')
    .set({ ...columnsOf(fields), updatedAt: sql`now()` })
    .where('orgId', '=', orgId)
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirst()
  if (!row) throw configNotFound(id)
  return describe(row)
}

/**
 * Deletes a config with its snapshot and gives up its unfinished build. What was built stays with the builds, for the
 * sessions that run. Whoever calls this fails the sessions that wait, which are of a room above.
 *
 * @throws SNAPSHOT_NOT_FOUND
 */
export async function deleteConfig(db: Database, orgId: string, id: string): Promise<void> {
  await db.transaction().execute(async (trx) => {
    const gone = await trx
      .deleteFrom('snapshotConfigs')
      .where('orgId', '=', orgId)
      .where('id', '=', id)
      .returning('id')
      .executeTakeFirst()
    if (!gone) throw configNotFound(id)
    await giveUpBuild(trx, orgId, id)
    await trx.deleteFrom('snapshots').where('orgId', '=', orgId).where('id', '=', id).execute()
  })
}

async function giveUpBuild(trx: Transaction, orgId: string, snapshotId: string): Promise<void> {
  const unfinished = await trx
    .selectFrom('builds')
    .selectAll()
    .where('orgId', '=', orgId)
    .where('snapshotId', '=', snapshotId)
    .where('status', 'in', ['queued', 'building'])
    .forUpdate()
    .executeTakeFirst()
  if (unfinished) await settle(trx, unfinished, { status: 'failed', error: 'Its config was deleted' })
}

async function assertTemplate(db: Database, orgId: string, template = defaultTemplate): Promise<void> {
  if (isTemplate(template)) return
  if (!(await readConfig(db, orgId, template))) throw snapshotNotFound(template)
  const why = `"${template}" is a config, and a config starts from a template`
  throw new ApiError('CONFLICT', `${why}. ${knownTemplates()}`)
}

type ConfigRow = Selectable<DB['snapshotConfigs']>

function readConfig(db: Database, orgId: string, id: string): Promise<ConfigRow | undefined> {
  const query = db.selectFrom('snapshotConfigs').selectAll().where('orgId', '=', orgId).where('id', '=', id)
  return query.executeTakeFirst()
}

const columnsOf = ({ template, setup, requiredDomains, resources, isolation }: Fields) => ({
  template: template ?? defaultTemplate,
  setup,
  requiredDomains,
  vcpus: resources.vcpus,
  memoryMb: resources.memoryMB,
  diskMb: resources.diskMB,
  isolationMin: isolation,
})

function describe(row: ConfigRow): Shown {
  const { id, template, setup, requiredDomains, vcpus, memoryMb, diskMb, isolationMin, createdAt, updatedAt } = row
  return {
    id,
    template,
    setup,
    requiredDomains,
    resources: { vcpus, memoryMB: memoryMb, diskMB: diskMb },
    isolation: isolationMin === 'vm' ? 'vm' : 'any',
    createdAt: createdAt.toISOString(),
    updatedAt: updatedAt.toISOString(),
  }
}

function configNotFound(id: string): ApiError {
  const what = isTemplate(id) ? `"${id}" is a template that paws brings, not a config` : `Config "${id}" does not exist`
  return new ApiError('SNAPSHOT_NOT_FOUND', `${what}. GET /v1/snapshot-configs lists yours.`)
}
