import type { Endpoint } from './endpoint.ts'
import * as fleet from './fleet.ts'
import * as organizations from './organizations.ts'
import * as secrets from './secrets.ts'
import * as service from './service.ts'
import * as io from './session-io.ts'
import * as sessions from './sessions.ts'
import * as configs from './snapshot-configs.ts'
import * as snapshots from './snapshots.ts'
import * as link from './worker-link.ts'

/** Every operation there is, by its operationId. A new one is added here, and the compiler then asks for its handler. */
export const endpoints = {
  createSession: sessions.createSession,
  getSession: sessions.getSession,
  listSessions: sessions.listSessions,
  cancelSession: sessions.cancelSession,
  streamSessionEvents: sessions.streamSessionEvents,
  getSessionLogs: sessions.getSessionLogs,
  listSessionEgress: sessions.listSessionEgress,
  execInSession: io.execInSession,
  openTerminal: io.openTerminal,
  readSessionFile: io.readSessionFile,
  writeSessionFile: io.writeSessionFile,

  listTemplates: snapshots.listTemplates,
  listSnapshots: snapshots.listSnapshots,
  getSnapshot: snapshots.getSnapshot,
  buildSnapshot: snapshots.buildSnapshot,
  getBuild: snapshots.getBuild,
  streamBuildEvents: snapshots.streamBuildEvents,
  createSnapshotConfig: configs.createSnapshotConfig,
  listSnapshotConfigs: configs.listSnapshotConfigs,
  getSnapshotConfig: configs.getSnapshotConfig,
  updateSnapshotConfig: configs.updateSnapshotConfig,
  deleteSnapshotConfig: configs.deleteSnapshotConfig,

  putSecret: secrets.putSecret,
  listSecrets: secrets.listSecrets,
  deleteSecret: secrets.deleteSecret,

  getFleet: fleet.getFleet,
  listWorkers: fleet.listWorkers,
  getWorker: fleet.getWorker,
  drainWorker: fleet.drainWorker,
  undrainWorker: fleet.undrainWorker,
  removeWorker: fleet.removeWorker,
  createEnrolmentToken: fleet.createEnrolmentToken,

  whoami: organizations.whoami,
  createOrganization: organizations.createOrganization,
  listOrganizations: organizations.listOrganizations,
  getOrganization: organizations.getOrganization,
  updateOrganization: organizations.updateOrganization,
  createApiKey: organizations.createApiKey,
  listApiKeys: organizations.listApiKeys,
  revokeApiKey: organizations.revokeApiKey,
  rotateApiKey: organizations.rotateApiKey,
  getWebhookSecret: organizations.getWebhookSecret,
  rotateWebhookSecret: organizations.rotateWebhookSecret,
  rotateDataKey: organizations.rotateDataKey,

  getHealth: service.getHealth,
  getReadiness: service.getReadiness,
  getReadinessAlias: service.getReadinessAlias,
  getOpenApi: service.getOpenApi,
  getOpenApiAlias: service.getOpenApiAlias,
  getReference: service.getReference,

  enrolWorker: link.enrolWorker,
  heartbeat: link.heartbeat,
  claim: link.claim,
  reportOutput: link.reportOutput,
  finishSession: link.finishSession,
  reportBuild: link.reportBuild,
  finishBuild: link.finishBuild,
  putSnapshotFile: link.putSnapshotFile,
  getSnapshotFile: link.getSnapshotFile,
  openTunnel: link.openTunnel,
} as const satisfies Record<string, Endpoint>

export type Endpoints = typeof endpoints
export type OperationId = keyof Endpoints
