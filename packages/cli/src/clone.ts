import { fileURLToPath } from 'node:url'

const fromRoot = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url))

/**
 * What of this clone the command line starts as processes of their own. By path, not by import: it knows nothing of
 * their insides.
 */
export const clone = {
  controlPlane: fromRoot('packages/control-plane/src/main.ts'),
  worker: fromRoot('packages/worker/src/main.ts'),
  /** Tries one sandbox on this host */
  probe: fromRoot('packages/worker/src/probe.ts'),
  /** Programs that the launcher compiles */
  guestAgent: fromRoot('.paws/bin/guest-agent'),
  slotHelper: fromRoot('.paws/bin/slot-helper'),
}
