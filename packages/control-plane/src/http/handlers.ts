import type { Handlers } from './handler.ts'
import { fleetHandlers } from './handlers/fleet.ts'
import { organizationHandlers } from './handlers/organizations.ts'
import { secretHandlers } from './handlers/secrets.ts'
import { serviceHandlers } from './handlers/service.ts'
import { sessionIoHandlers } from './handlers/session-io.ts'
import { sessionHandlers } from './handlers/sessions.ts'
import { snapshotHandlers } from './handlers/snapshots.ts'
import { workerLinkHandlers } from './handlers/worker-link.ts'

/** Who serves which operation: a file beside for each room. The compiler names what is missing. */
export const handlers: Handlers = {
  ...organizationHandlers,
  ...sessionHandlers,
  ...sessionIoHandlers,
  ...secretHandlers,
  ...snapshotHandlers,
  ...fleetHandlers,
  ...workerLinkHandlers,
  ...serviceHandlers,
}
