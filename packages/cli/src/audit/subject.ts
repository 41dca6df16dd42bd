import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { type PawsClient, PawsError, type Session } from '@paws/sdk'
import type { CliConfig, Credentials } from '../config.ts'
import type { Subject } from './place.ts'
import { failingId, type Plan, secretName, sessionOf, snapshotId } from './plan.ts'
import { endFile, failingSetup, imageSetup, readyLine } from './sow.ts'

export interface SubjectOptions {
  config: CliConfig
  /** Of the installation on this machine */
  credentials: Credentials
  client: PawsClient
  /** Where the made-up secrets are sent */
  host: string
}

/** A subject of an audit that runs. */
export interface LiveSubject extends Subject {
  /** Lets the session end by itself */
  end(): Promise<void>
  /** How many requests took the made-up credential out and were answered */
  sent(): Promise<number>
  /** Removes what was made for the audit */
  close(): Promise<void>
}

/**
 * Makes everything that is looked at, through the API like any client: a stored secret, a snapshot, a build that fails,
 * and a session, which has used the secrets when this resolves.
 */
export async function startSubject(
  plan: Plan,
  options: SubjectOptions,
  say: (text: string) => void,
): Promise<LiveSubject> {
  const { client, host } = options
  const began = new Date()
  const undo: (() => Promise<unknown>)[] = []
  // Each step is tried, also when the control plane is gone by now: what is open here would keep this process alive.
  const close = async () => {
    const failures: unknown[] = []
    for (const step of undo.splice(0).reverse()) await step().catch((error: unknown) => failures.push(error))
    if (failures.length > 0) throw failures[0]
  }
  try {
    const recorder = await recordCallbacks()
    undo.push(recorder.close)
    undo.push(await storeSecret(client, plan))
    say('Building a snapshot with a marker in it')
    const jobs = await buildSnapshots(client, plan, undo)
    say('Starting a session that uses made-up secrets')
    const { sessionId, calledBack } = await createSession(client, plan, host, recorder.url)
    undo.push(() => client.sessions.cancel(sessionId))
    await untilReady(client, sessionId)
    return {
      ...options,
      began,
      sessionId,
      params: { ...(await paramsOf(client, plan)), sessionId: [sessionId], jobId: jobs },
      callbacks: calledBack ? recorder.received : undefined,
      end: () => end(client, sessionId),
      sent: () => countSent(client, sessionId),
      close,
    }
  } catch (error) {
    // What went wrong first is the reason to hear of.
    await close().catch(() => undefined)
    throw error
  }
}

async function recordCallbacks() {
  const received: Buffer[] = []
  const server = createServer((request, response) => {
    void buffer(request).then((body) => {
      received.push(Buffer.concat([Buffer.from(`${JSON.stringify(request.headers)}\n`), body]))
      response.end()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  return { received, close, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/` }
}

async function storeSecret(client: PawsClient, plan: Plan) {
  const params = { path: { secretName: secretName(plan) } }
  await client.http.PUT('/v1/secrets/{secretName}', { params, body: { value: plan.secrets.stored } })
  return () => client.http.DELETE('/v1/secrets/{secretName}', { params })
}

/** @returns the ids of both builds */
async function buildSnapshots(client: PawsClient, plan: Plan, undo: (() => Promise<unknown>)[]): Promise<string[]> {
  const setups = {
    [failingId(plan)]: failingSetup(plan.markers.logs),
    [snapshotId(plan)]: imageSetup(plan.markers.snapshots),
  }
  const jobs: string[] = []
  for (const [id, setup] of Object.entries(setups)) {
    await client.http.POST('/v1/snapshot-configs', { params: { header: {} }, body: { id, setup } })
    undo.push(() => client.http.DELETE('/v1/snapshot-configs/{snapshotId}', { params: { path: { snapshotId: id } } }))
    const { jobId } = await client.snapshots.build(id)
    jobs.push(jobId)
    const build = await client.snapshots.waitForBuild(id, jobId)
    const wanted = id === snapshotId(plan) ? 'ready' : 'failed'
    if (build.status !== wanted) {
      throw new Error(`The audit's snapshot ${id} is ${build.status}, not ${wanted}: ${build.error ?? build.log}`)
    }
  }
  return jobs
}

/** With a callback if this installation delivers any to this machine. */
async function createSession(client: PawsClient, plan: Plan, host: string, callbackUrl: string) {
  try {
    const { sessionId } = await client.sessions.create(sessionOf(plan, host, callbackUrl))
    return { sessionId, calledBack: true }
  } catch (error) {
    const refused = error instanceof PawsError && error.details?.every(({ path }) => path === 'callbackUrl')
    if (!refused) throw error
    const { sessionId } = await client.sessions.create(sessionOf(plan, host, undefined))
    return { sessionId, calledBack: false }
  }
}

async function untilReady(client: PawsClient, sessionId: string): Promise<void> {
  let said = ''
  for await (const { event, data } of client.sessions.events(sessionId)) {
    if (event === 'stderr') said += data.text
    if (said.includes(readyLine)) return
    if (event === 'done') throw new Error(endedEarly(data as Session, said))
  }
}

function endedEarly({ status, error }: Session, said: string): string {
  return `The audit's session ended before it was looked at (${status}): ${error?.message ?? said}`
}

async function end(client: PawsClient, sessionId: string): Promise<void> {
  const exec = client.sessions.exec(sessionId, { command: ['touch', endFile], cwd: '/' })
  for await (const { event, data } of exec) if (event === 'error') throw new Error(data.message)
  const { status, stderr } = await client.sessions.wait(sessionId)
  if (status !== 'completed') throw new Error(`The audit's session is ${status}: ${stderr}`)
}

async function countSent(client: PawsClient, sessionId: string): Promise<number> {
  const params = { path: { sessionId }, query: { limit: 200 } }
  const { data } = await client.http.GET('/v1/sessions/{sessionId}/egress', { params })
  return data?.requests.filter(({ credential, reason }) => credential && !reason).length ?? 0
}

async function paramsOf(client: PawsClient, plan: Plan): Promise<Record<string, string[]>> {
  const { organization } = await client.whoami()
  const keys: string[] = []
  for await (const { id } of client.keys.list(organization.id)) keys.push(id)
  const workers = await client.fleet.workers()
  const snapshot = await client.snapshots.get(snapshotId(plan))
  return {
    orgId: [organization.id],
    keyId: keys,
    name: workers.map(({ name }) => name),
    secretName: [secretName(plan)],
    snapshotId: [snapshotId(plan), failingId(plan)],
    digest: snapshot.digest ? [snapshot.digest] : [],
    file: ['manifest.json'],
  }
}
