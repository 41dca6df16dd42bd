import type { Logger } from 'pino'
import type { Services } from '../../services.ts'
import { failWaiting } from '../../sessions/index.ts'
import {
  createConfig,
  deleteConfig,
  findBuild,
  finishBuild,
  getBuild,
  getConfig,
  getSnapshot,
  getSnapshotFile,
  listConfigs,
  listSnapshots,
  listTemplates,
  parseFile,
  putSnapshotFile,
  requestBuild,
  storeReport,
  streamBuild,
  updateConfig,
} from '../../snapshots/index.ts'
import type { Handlers } from '../handler.ts'
import { resumeAfter } from './resume.ts'

export const snapshotHandlers = {
  async listTemplates() {
    return { status: 200, json: { templates: listTemplates() } }
  },

  async listSnapshots({ caller }, { db }) {
    return { status: 200, json: { snapshots: await listSnapshots(db, caller.orgId) } }
  },

  async getSnapshot({ params, caller }, { db }) {
    return { status: 200, json: await getSnapshot(db, caller.orgId, params.snapshotId) }
  },

  async buildSnapshot({ params, caller }, { db }) {
    const { jobId } = await requestBuild(db, caller, params.snapshotId)
    return { status: 202, json: { snapshotId: params.snapshotId, status: 'building', jobId } }
  },

  async getBuild({ params, caller }, { db }) {
    return { status: 200, json: await getBuild(db, caller.orgId, params.snapshotId, params.jobId) }
  },

  async streamBuildEvents(input, services) {
    const { params, caller, signal } = input
    const build = await findBuild(services.db, caller.orgId, params.snapshotId, params.jobId)
    return { status: 200, events: streamBuild(services, build, { after: resumeAfter(input), signal }) }
  },

  async createSnapshotConfig({ body, caller }, { db }) {
    return { status: 201, json: await createConfig(db, caller.orgId, body) }
  },

  async listSnapshotConfigs({ caller }, { db }) {
    return { status: 200, json: { configs: await listConfigs(db, caller.orgId) } }
  },

  async getSnapshotConfig({ params, caller }, { db }) {
    return { status: 200, json: await getConfig(db, caller.orgId, params.snapshotId) }
  },

  async updateSnapshotConfig({ params, body, caller }, { db }) {
    return { status: 200, json: await updateConfig(db, caller.orgId, params.snapshotId, body) }
  },

  async deleteSnapshotConfig({ params, caller, log }, services) {
    await deleteConfig(services.db, caller.orgId, params.snapshotId)
    await endWaiting(services, log)
    return { status: 204, empty: true }
  },

  async reportBuild({ params, body, caller }, { db }) {
    await storeReport(db, { jobId: params.jobId, workerId: caller.workerId, fence: body.fence }, body)
    return { status: 204, empty: true }
  },

  async finishBuild({ params, body, caller, log }, services) {
    const lease = { jobId: params.jobId, workerId: caller.workerId, fence: body.fence }
    const settled = await finishBuild(services, lease, body.outcome)
    if (settled.status === 'failed') await endWaiting(services, log)
    return { status: 200, json: settled }
  },

  async putSnapshotFile({ params, body }, { blobs }) {
    const { digest, file } = parseFile(params)
    await putSnapshotFile(blobs, digest, file, body)
    return { status: 204, empty: true }
  },

  async getSnapshotFile({ params, caller }, services) {
    const { digest, file } = parseFile(params)
    const { size, content } = await getSnapshotFile(services, caller.workerId, digest, file)
    return { status: 200, bytes: content, length: size, contentType: 'application/octet-stream' }
  },
} satisfies Partial<Handlers>

/** Fails the sessions that would wait for a snapshot for ever. Where that fails, the reaper does it later. */
async function endWaiting(services: Services, log: Logger): Promise<void> {
  await failWaiting(services.db, services).catch((err: unknown) =>
    log.error({ err }, 'could not fail waiting sessions'),
  )
}
