import { failWaiting } from '../../sessions/index.ts'
import {
  findBuild,
  finishBuild,
  getBuild,
  getSnapshot,
  getSnapshotFile,
  listSnapshots,
  listTemplates,
  parseFile,
  putSnapshotFile,
  requestBuild,
  storeReport,
  streamBuild,
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

  async reportBuild({ params, body, caller }, { db }) {
    await storeReport(db, { jobId: params.jobId, workerId: caller.workerId, fence: body.fence }, body)
    return { status: 204, empty: true }
  },

  async finishBuild({ params, body, caller, log }, services) {
    const lease = { jobId: params.jobId, workerId: caller.workerId, fence: body.fence }
    const settled = await finishBuild(services, lease, body.outcome)
    // Sessions that waited for it would wait for ever. What fails here is done by the reaper later.
    if (settled.status === 'failed') {
      await failWaiting(services.db, services).catch((err: unknown) =>
        log.error({ err }, 'could not fail waiting sessions'),
      )
    }
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
