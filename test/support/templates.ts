import { putFile } from '../../packages/worker/src/builds/transfer.ts'
import { openLink } from '../../packages/worker/src/link/client.ts'
import { type HeldSnapshot, uploadSnapshot } from '../../packages/worker/src/snapshots/index.ts'
import { templateImage } from '../../packages/worker/src/snapshots/testing/template-image.ts'
import type { TestControlPlane } from './control-plane.ts'
import { sessionsOf } from './sessions.ts'
import type { TestWorker } from './worker.ts'

/**
 * Gives the control plane a built-in snapshot, as a build would, without building it again for each test, and lets the
 * worker unpack it: on a busy machine that takes longer than a test waits for its session.
 */
export async function provideTemplate(plane: TestControlPlane, worker: TestWorker, id: string): Promise<HeldSnapshot> {
  const { url, services } = plane
  const held = await templateImage(id)
  const link = openLink({ url: new URL(url), credential: worker.identity.credential })
  try {
    await uploadSnapshot(held, putFile(link, new AbortController().signal))
  } finally {
    await link.close()
  }
  const { sizeBytes } = held.manifest.files['rootfs.squashfs']
  const { digest } = held
  const build = { snapshotId: id, template: id, digest, status: 'ready', completedAt: new Date() }
  await services.db
    .insertInto('builds')
    .values({ jobId: `build-${digest.slice(-12)}`, ...build })
    .execute()
  await services.db.insertInto('snapshots').values({ id, version: 1, digest, sizeBytes }).execute()
  const { start, ended } = sessionsOf(plane)
  await ended(await start('true', { snapshot: id }), 300_000)
  return held
}
