import type { Handlers } from './handler.ts'
import { organizationHandlers } from './handlers/organizations.ts'
import { serviceHandlers } from './handlers/service.ts'

/** Who serves which operation. Each room's part is a file beside; a new one is added here. */
export const handlers: Partial<Handlers> = {
  ...organizationHandlers,
  ...serviceHandlers,
}
