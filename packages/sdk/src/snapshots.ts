import { type EventOf, type FollowOptions, followEvents } from './events.ts'
import type { components, operations } from './generated/api.ts'
import { dataOf, type Http, once } from './http.ts'
import type { Transport } from './transport.ts'

export type Snapshot = components['schemas']['Snapshot']
export type Template = components['schemas']['Template']
export type Build = components['schemas']['Build']
export type SnapshotConfig = components['schemas']['SnapshotConfig']
export type NewSnapshotConfig = operations['createSnapshotConfig']['requestBody']['content']['application/json']
export type BuildEvent = EventOf<operations['streamBuildEvents']['responses'][200]['content']['text/event-stream']>

export function snapshotsOf(http: Http, transport: Transport) {
  const get = (snapshotId: string) =>
    dataOf(http.GET('/v1/snapshots/{snapshotId}', { params: { path: { snapshotId } } }))

  const getBuild = (snapshotId: string, jobId: string) =>
    dataOf(http.GET('/v1/snapshots/{snapshotId}/builds/{jobId}', { params: { path: { snapshotId, jobId } } }))

  function buildEvents(snapshotId: string, jobId: string, options?: FollowOptions) {
    const path = `/v1/snapshots/${encodeURIComponent(snapshotId)}/builds/${encodeURIComponent(jobId)}/events`
    return followEvents(transport, path, ({ event }) => event === 'done', options) as AsyncGenerator<BuildEvent, void>
  }

  return {
    async list(): Promise<Snapshot[]> {
      return (await dataOf(http.GET('/v1/snapshots'))).snapshots
    },
    async templates(): Promise<Template[]> {
      return (await dataOf(http.GET('/v1/templates'))).templates
    },
    get,
    /** Starts a build, or answers the one that is under way */
    build: (snapshotId: string) =>
      dataOf(http.POST('/v1/snapshots/{snapshotId}/build', { params: { path: { snapshotId }, header: once() } })),
    getBuild,
    buildEvents,
    /** How snapshots of one's own are made */
    configs: configsOf(http),
    /** Waits for the end of a build, good or bad, telling each event on the way. */
    async waitForBuild(
      snapshotId: string,
      jobId: string,
      { onEvent, ...options }: FollowOptions & { onEvent?: (event: BuildEvent) => void } = {},
    ): Promise<Build> {
      for await (const event of buildEvents(snapshotId, jobId, options)) onEvent?.(event)
      return getBuild(snapshotId, jobId)
    },
  }
}

function configsOf(http: Http) {
  const path = (snapshotId: string) => ({ path: { snapshotId } })
  return {
    /** Builds nothing yet: `snapshots.build` does, and so does the first session that needs it */
    create: (config: NewSnapshotConfig) =>
      dataOf(http.POST('/v1/snapshot-configs', { params: { header: once() }, body: config })),
    async list(): Promise<SnapshotConfig[]> {
      return (await dataOf(http.GET('/v1/snapshot-configs'))).configs
    },
    get: (snapshotId: string) => dataOf(http.GET('/v1/snapshot-configs/{snapshotId}', { params: path(snapshotId) })),
    /** Replaces the whole config: what is left out gets its default. What was built before serves on */
    update: (snapshotId: string, config: Omit<NewSnapshotConfig, 'id'>) =>
      dataOf(http.PUT('/v1/snapshot-configs/{snapshotId}', { params: path(snapshotId), body: config })),
    /** With its snapshot; sessions that run go on */
    async delete(snapshotId: string): Promise<void> {
      await http.DELETE('/v1/snapshot-configs/{snapshotId}', { params: path(snapshotId) })
    },
  }
}
