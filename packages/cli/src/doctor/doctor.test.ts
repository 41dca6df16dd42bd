import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { readConfig } from '../config.ts'
import { doctorCommand } from './command.ts'
import { examine } from './doctor.ts'

let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'paws-doctor-'))
})
afterEach(async () => {
  process.exitCode = undefined
  vi.restoreAllMocks()
  await rm(folder, { recursive: true, force: true })
})

const configOf = (env: NodeJS.ProcessEnv) => readConfig({ HOME: folder, ...env })

test('this host, which runs the tests, can run paws', async () => {
  const findings = await examine(configOf({ PAWS_DATA: join(tmpdir(), 'paws-doctor'), PORT: '0' }))
  expect(findings.filter(({ state }) => state === 'missing')).toEqual([])
  expect(findings.filter(({ found }) => found.startsWith('could not be checked'))).toEqual([])
  for (const finding of findings.filter(({ name, state }) => state !== 'ok' && name !== 'Limits')) {
    expect(finding, finding.name).toMatchObject({ means: expect.any(String), mend: expect.any(String) })
  }
})

test('a taken port is named with another one to take, and the exit code is 1', async () => {
  const server = createServer()
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as { port: number }
  const said: string[] = []
  vi.spyOn(console, 'log').mockImplementation((text: string) => void said.push(text))
  const program = new Command()
  doctorCommand(program, configOf({ PAWS_DATA: join(tmpdir(), 'paws-doctor'), PORT: `${port}` }))
  await program.parseAsync(['doctor', '--json'], { from: 'user' })
  server.close()
  const { findings } = JSON.parse(said.join('')) as { findings: { name: string; state: string; found: string }[] }
  expect(findings.find(({ name }) => name === 'Port')).toMatchObject({
    state: 'missing',
    found: expect.stringContaining(`Choose another: PORT=${port + 1}`),
  })
  expect(process.exitCode).toBe(1)
})

test.runIf(process.getuid?.() === 0)(
  'a data folder that PostgreSQL’s user can’t reach is found before it fails',
  async () => {
    const findings = await examine(configOf({ PAWS_DATA: join(folder, 'data'), PORT: '0' }))
    expect(findings.find(({ name }) => name === 'Data folder')).toMatchObject({
      state: 'missing',
      found: `${folder} is closed to others`,
      mend: expect.stringContaining(`chmod o+x ${folder}`),
    })
  },
)
