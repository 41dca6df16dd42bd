import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import pino from 'pino'
import { putFile } from '../../packages/worker/src/builds/transfer.ts'
import { readConfig } from '../../packages/worker/src/config.ts'
import { openLink } from '../../packages/worker/src/link/client.ts'
import { startWorker, type Worker } from '../../packages/worker/src/main.ts'
import { guestBinary, slotHelperBinary } from '../../packages/worker/src/sandbox/testing/build-program.ts'
import { type HeldSnapshot, uploadSnapshot } from '../../packages/worker/src/snapshots/index.ts'
import { templateImage } from '../../packages/worker/src/snapshots/testing/template-image.ts'
import type { TestControlPlane } from './control-plane.ts'
import { sessionsOf } from './sessions.ts'

export interface TestWorker extends Worker {
  dataDir: string
}

export interface TestWorkerOptions {
  /** Settings beyond the test's own, by the names of the environment */
  env?: Record<string, string>
  /** Kept when the worker closes; its own otherwise */
  dataDir?: string
  logLevel?: string
}

/** Settings of a worker of this control plane, with an enrolment token of its own. */
export async function workerEnvironment(
  { url, call }: TestControlPlane,
  { env, dataDir }: { env?: Record<string, string>; dataDir: string },
): Promise<Record<string, string>> {
  const { body } = await call<{ token: string }>('POST', '/v1/fleet/enrolment-tokens', { body: {} })
  return {
    PAWS_URL: url,
    PAWS_ENROLMENT_TOKEN: body.token,
    PAWS_WORKER_NAME: `test-${basename(dataDir)
      .toLowerCase()
      .replace(/[^a-z0-9]/g, '')}`,
    PAWS_DATA: dataDir,
    PAWS_GUEST_AGENT: await guestBinary(),
    PAWS_SLOT_HELPER: await slotHelperBinary(),
    PAWS_SLOTS: '2',
    ...env,
  }
}

/** A real worker in this process, with the driver that this host has. */
export async function startTestWorker(plane: TestControlPlane, options: TestWorkerOptions = {}): Promise<TestWorker> {
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'paws-worker-')))
  const config = readConfig(await workerEnvironment(plane, { dataDir, env: options.env }))
  const worker = await startWorker(config, pino({ level: options.logLevel ?? 'silent' }))
  return {
    ...worker,
    dataDir,
    async close() {
      await worker.close()
      if (!options.dataDir) await rm(dataDir, { recursive: true, force: true })
    },
  }
}

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

export const provideMinimal = (plane: TestControlPlane, worker: TestWorker) => provideTemplate(plane, worker, 'minimal')
