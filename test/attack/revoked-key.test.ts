import { afterAll, beforeAll, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { startTestControlPlane, type TestControlPlane } from '../support/control-plane.ts'
import { pidsWith } from '../support/processes.ts'
import { collect, sessionsOf } from '../support/sessions.ts'
import { provideMinimal, startTestWorker, type TestWorker } from '../support/worker.ts'

/** Ends the seconds that programs of this run sleep, so that another run's are not taken for them. */
const run = process.pid

let plane: TestControlPlane
let worker: TestWorker

beforeAll(async () => {
  plane = await startTestControlPlane()
  worker = await startTestWorker(plane)
  await provideMinimal(plane, worker)
}, 600_000)
afterAll(async () => {
  await worker?.close()
  await plane?.close()
})

const keysPath = () => `/v1/orgs/${plane.orgId}/api-keys`

/** A key, and a terminal, a command and a stream of events that it has opened. */
async function intruder(path: string, numbers: string[], expiresAt?: Date) {
  const { body: made } = await plane.call<{ id: string; key: string }>('POST', keysPath(), {
    body: { name: 'leaked', scopes: ['sessions:read', 'sessions:write'], expiresAt },
  })
  const sessions = sessionsOf({ ...plane, key: made.key })
  const terminal = new WebSocket(`${plane.url.replace('http', 'ws')}${path}/terminal`, {
    headers: { authorization: `Bearer ${made.key}` },
  })
  const closed = new Promise<number>((resolve) => terminal.on('close', resolve))
  await new Promise((resolve) => terminal.on('open', resolve))
  terminal.send(Buffer.from(`sleep ${numbers[0]}\r`))
  const body = JSON.stringify({ command: ['sleep', numbers[1]] })
  const command = collect(sessions.events('POST', `${path}/exec`, { body }))
  const events = collect(sessions.events('GET', `${path}/events`))
  await expect.poll(() => numbers.flatMap(pidsWith)).toHaveLength(2)
  return { ...made, closed, command, events }
}

test.each(['revoked', 'expired'])(
  'what a key has opened ends once it is %s, and what others have does not',
  async (how) => {
    const own = sessionsOf(plane)
    const sessionId = await own.start('while sleep 0.2; do echo on; done')
    await own.saying(sessionId, 'on')
    const path = `/v1/sessions/${sessionId}`
    const watching = own.events('GET', `${path}/events`)[Symbol.asyncIterator]()
    const numbers = how === 'revoked' ? [`31415926${run}`, `31415927${run}`] : [`16180339${run}`, `16180340${run}`]

    const leaked = await intruder(path, numbers, how === 'expired' ? new Date(Date.now() + 4000) : undefined)
    if (how === 'revoked') expect((await plane.call('DELETE', `${keysPath()}/${leaked.id}`)).status).toBe(204)
    await expect.poll(() => numbers.flatMap(pidsWith), { timeout: 10_000 }).toEqual([])
    expect(await leaked.closed).toBe(1011)
    expect((await leaked.events).map(({ event }) => event)).not.toContain('done')
    expect((await leaked.command).map(({ event }) => event)).not.toContain('exit')
    const refused = await plane.call('GET', path, { key: leaked.key })
    expect(refused).toMatchObject({ status: 401, body: { error: { code: 'UNAUTHORIZED' } } })

    expect((await own.get(sessionId)).status).toBe('running')
    const seen = (await own.get(sessionId)).stdout?.length ?? 0
    for (let length = 0; length <= seen; ) {
      const { value, done } = await watching.next()
      expect(done).toBe(false)
      if (value?.event === 'stdout') length += String(value.data.text).length
    }
    await plane.call('DELETE', path)
  },
)
