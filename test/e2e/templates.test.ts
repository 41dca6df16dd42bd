import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startTestControlPlane, type TestControlPlane } from '../support/control-plane.ts'
import { collect, sessionsOf } from '../support/sessions.ts'
import { provideTemplate, startTestWorker, type TestWorker } from '../support/worker.ts'

/** Setups fetch packages over the network; on a busy machine that and making an image take minutes. */
const slowMs = 15 * 60_000

let plane: TestControlPlane
let worker: TestWorker
let sessions: ReturnType<typeof sessionsOf>

beforeAll(async () => {
  plane = await startTestControlPlane()
  worker = await startTestWorker(plane)
  await provideTemplate(plane, worker, 'minimal')
  sessions = sessionsOf(plane)
}, slowMs)

afterAll(async () => {
  await worker?.close()
  await plane?.close()
})

interface Build {
  status: string
  error?: string
  log: string
}

const resources = { vcpus: 1, memoryMB: 1024, diskMB: 1024 }
const config = (setup: string) => ({ id: 'own', template: 'minimal', setup, requiredDomains: [], resources })

async function build(id: string): Promise<string> {
  const { status, body } = await plane.call<{ jobId: string }>('POST', `/v1/snapshots/${id}/build`)
  expect(status, JSON.stringify(body)).toBe(202)
  return body.jobId
}

test(
  'a config is built when a session first needs it, and its last good version serves on',
  async () => {
    const setup = '#!/bin/bash\necho "made by $(id -un)" > /opt/mark\necho said by the setup\n'
    expect((await plane.call('POST', '/v1/snapshot-configs', { body: config(setup) })).status).toBe(201)
    const id = await sessions.start('cat /opt/mark; ls /tmp', { snapshot: 'own' })
    expect((await sessions.get(id)).status).toBe('pending')
    expect(await sessions.ended(id, slowMs)).toMatchObject({ status: 'completed', stdout: 'made by root\n' })

    const broken = config('echo broken >> /opt/mark\necho the last words >&2\nexit 7\n')
    expect((await plane.call('PUT', '/v1/snapshot-configs/own', { body: broken })).status).toBe(200)
    const jobId = await build('own')
    const events = await collect(sessions.events('GET', `/v1/snapshots/own/builds/${jobId}/events`))
    expect(events.at(-1)).toMatchObject({ event: 'done', data: { status: 'failed' } })
    const steps = events.filter(({ event }) => event === 'progress').map(({ data }) => data.step)
    expect(steps).toContain('Running the setup')
    const { body } = await plane.call<Build>('GET', `/v1/snapshots/own/builds/${jobId}`)
    expect(body).toMatchObject({ status: 'failed', error: 'The setup ended with exit code 7: the last words' })
    expect(body.log).toContain('the last words\n')

    const again = await sessions.start('cat /opt/mark', { snapshot: 'own' })
    expect(await sessions.ended(again, slowMs)).toMatchObject({ status: 'completed', stdout: 'made by root\n' })
  },
  slowMs,
)

test(
  'a build that is given up ends its setup',
  async () => {
    const endless = config('echo begun\nsleep 3600\n')
    expect((await plane.call('PUT', '/v1/snapshot-configs/own', { body: endless })).status).toBe(200)
    const jobId = await build('own')
    const state = async () => (await plane.call<Build>('GET', `/v1/snapshots/own/builds/${jobId}`)).body
    while (!(await state()).log.includes('begun')) await sleep(200)
    expect((await plane.call('DELETE', '/v1/snapshot-configs/own')).status).toBe(204)
    // Its worker is free for the next one before the hour is over.
    const next = { ...config('true'), id: 'next' }
    expect((await plane.call('POST', '/v1/snapshot-configs', { body: next })).status).toBe(201)
    const id = await sessions.start('echo ran', { snapshot: 'next' })
    expect(await sessions.ended(id, slowMs)).toMatchObject({ status: 'completed', stdout: 'ran\n' })
  },
  slowMs,
)

test(
  'a template that is not built yet is built on its base, through the presets of this machine',
  async () => {
    const id = await sessions.start('node --print "[process.version, 6 * 7].join()"; npm --version', {
      snapshot: 'node',
    })
    const ended = await sessions.ended(id, slowMs)
    expect(ended).toMatchObject({
      status: 'completed',
      stdout: expect.stringMatching(/^v24\.\d+\.\d+,42\n\d+\.\d+\.\d+\n$/),
    })
  },
  slowMs,
)

test.each([
  ['python', 'python --version && pip --version && python -m venv /tmp/v && cc --version', /^Python 3\..*pip .*cc /s],
  ['fullstack', 'node --version; psql --version; sqlite3 --version; rg --version; fd --version; pip --version', /^v24/],
  [
    'claude-code',
    'claude --version && rg --version | head -1 && git --version',
    /^\d+\.\d+\.\d+ \(Claude Code\)\nripgrep/,
  ],
])(
  '%s has its programs',
  async (template, script, output) => {
    await provideTemplate(plane, worker, template)
    const id = await sessions.start(`set -e\n${script}`, { snapshot: template })
    const ended = await sessions.ended(id, slowMs)
    expect(ended).toMatchObject({ status: 'completed', stdout: expect.stringMatching(output) })
  },
  slowMs,
)
