import { createHash, randomBytes } from 'node:crypto'
import type { Build, BuildClaim, Snapshot, SnapshotManifest } from '@paws/api'
import { expect } from 'vitest'
import type { z } from 'zod'
import { type ErrorAnswer, startTestControlPlane } from '../../../../../test/support/control-plane.ts'
import { workerState } from '../../../../../test/support/world.ts'

export type Claim = z.output<typeof BuildClaim>
export type BuildBody = z.output<typeof Build>
export type SnapshotBody = z.output<typeof Snapshot>
export type Image = ReturnType<typeof image>
type Finished = ErrorAnswer & { status: string }

/** What the worker that a test plays says of itself. */
export const state = (snapshots: string[] = []) => ({ ...workerState, maxSessions: 2, snapshots })

/** Bytes that could be a snapshot of `minimal`, with a manifest that may say something else. */
export function image(differences: Partial<SnapshotManifest> = {}, size = 100_000) {
  const squashfs = randomBytes(size)
  const sha256 = createHash('sha256').update(squashfs).digest('hex')
  const manifest: SnapshotManifest = {
    format: 1,
    id: 'minimal',
    template: { id: 'minimal', sha256 },
    architecture: 'amd64',
    env: {},
    packages: {},
    files: { 'rootfs.squashfs': { sha256, sizeBytes: size } },
    ...differences,
  }
  const bytes = Buffer.from(JSON.stringify(manifest))
  const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
  return { squashfs, sha256, manifest: bytes, digest, sizeBytes: size + bytes.length }
}

/** An image with just what a claim asks for. */
export function imageFor({ snapshotId, template, config, base }: Claim): Image {
  const sha256 = 'b'.repeat(64)
  return image({
    id: snapshotId,
    template: template === null ? undefined : { id: template, sha256 },
    config: config === null ? undefined : { organization: config.organization, sha256 },
    base: base?.digest,
  })
}

/** A control plane with a worker that a test plays, and the ways in which both are used. */
export async function openBuilder() {
  const plane = await startTestControlPlane()

  const enrol = (name: string) => plane.enrolWorker(state(), name)
  const worker = await enrol('builder')

  const ask = <T = ErrorAnswer>(method: string, path: string, body?: unknown, key: string = worker.credential) =>
    plane.call<T>(method, path, { key, body })

  async function claim(want: { sessions?: number; builds?: number } = { builds: 1 }, key?: string): Promise<Claim[]> {
    const body = { sessions: 0, builds: 0, waitMs: 0, ...want }
    return (await ask<{ claims: Claim[] }>('POST', '/worker/claim', body, key)).body.claims
  }

  async function claimOne(): Promise<Claim> {
    const [one] = await claim()
    if (!one) throw new Error('There was nothing to claim')
    return one
  }

  const requestBuild = (id = 'minimal', key = plane.key) =>
    plane.call<ErrorAnswer & { jobId: string; status: string }>('POST', `/v1/snapshots/${id}/build`, { key })
  const getSnapshot = async (id = 'minimal', key = plane.key) =>
    (await plane.call<SnapshotBody>('GET', `/v1/snapshots/${id}`, { key })).body
  const getBuild = async (jobId: string, id = 'minimal') =>
    (await plane.call<BuildBody>('GET', `/v1/snapshots/${id}/builds/${jobId}`)).body

  async function runSession(snapshot = 'minimal', key = plane.key) {
    const workload = { type: 'script', script: 'true' }
    return (await plane.call<{ sessionId: string }>('POST', '/v1/sessions', { key, body: { snapshot, workload } })).body
      .sessionId
  }
  async function getSession(sessionId: string, key = plane.key) {
    type Session = { status: string; error?: { code: string; message: string } }
    return (await plane.call<Session>('GET', `/v1/sessions/${sessionId}`, { key })).body
  }

  const put = (digest: string, file: string, bytes: Uint8Array) =>
    ask('PUT', `/worker/snapshots/${digest}/${file}`, bytes)
  async function upload(one: Image): Promise<void> {
    expect((await put(one.digest, 'rootfs.squashfs', one.squashfs)).status).toBe(204)
    expect((await put(one.digest, 'manifest.json', one.manifest)).status).toBe(204)
  }

  const finish = ({ jobId, fence }: { jobId: string; fence: number }, outcome: object, key?: string) =>
    ask<Finished>('POST', `/worker/builds/${jobId}/finish`, { fence, outcome }, key)
  const finishReady = (held: Claim, { digest, sizeBytes }: Image) =>
    finish(held, { status: 'ready', digest, sizeBytes })
  const fail = (held: Claim, error: string) => finish(held, { status: 'failed', error })

  /** Ends a claimed build well. */
  async function complete(held: Claim, one = imageFor(held)): Promise<Image> {
    await upload(one)
    expect((await finishReady(held, one)).body).toEqual({ status: 'ready' })
    return one
  }
  /** Asks for a build, takes it and ends it well. */
  async function buildOnce(id = 'minimal', key = plane.key): Promise<Image> {
    const { body } = await requestBuild(id, key)
    const held = await claimOne()
    expect(held).toMatchObject({ jobId: body.jobId, snapshotId: id })
    return complete(held)
  }

  async function readEvents(jobId: string, after = 0, id = 'minimal') {
    const path = `/v1/snapshots/${id}/builds/${jobId}/events?after=${after}`
    const { body } = await plane.call<string>('GET', path)
    return body.split('\n\n').flatMap((text) => {
      const match = /^id: (\d+)\nevent: (\w+)\ndata: (.*)$/.exec(text)
      return match ? [{ id: Number(match[1]), event: match[2], data: JSON.parse(match[3] ?? '') }] : []
    })
  }

  return {
    ...{ plane, worker, enrol, ask, claim, claimOne, requestBuild, getSnapshot, getBuild, runSession, getSession },
    ...{ put, upload, finish, finishReady, fail, complete, buildOnce, readEvents },
    /** Nothing waits to be claimed from another test. */
    async clear() {
      for (const table of ['sessions', 'builds', 'snapshots', 'snapshotConfigs'] as const) {
        await plane.services.db.deleteFrom(table).execute()
      }
    },
  }
}
