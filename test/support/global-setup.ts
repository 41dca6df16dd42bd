import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import type { TestProject } from 'vitest/node'
import { migrate } from '../../packages/control-plane/src/database/index.ts'
import { openJobs } from '../../packages/control-plane/src/jobs/index.ts'
import { createDatabase, templateName } from './database-admin.ts'
import { temporaryPostgres } from './postgres.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** URL of the run's own PostgreSQL server */
    postgresUrl: string
    /** Folder where each test process notes which answers of the API it saw */
    recordings: string
  }
}

let started = 0
let stop: (() => Promise<void>) | undefined

/** One PostgreSQL server a run, with a migrated database that each test's own is copied from. */
export default async function setup(project: TestProject) {
  // Every project of the run sets up for itself and tears down after itself, but there is one server.
  if (started++ === 0) stop = await start(project)
  return async () => {
    if (--started === 0) await stop?.()
  }
}

async function start(project: TestProject): Promise<() => Promise<void>> {
  const postgres = await temporaryPostgres()
  const recordings = await mkdtemp(join(tmpdir(), 'paws-seen-'))
  const template = await createDatabase(postgres.url, templateName)
  await migrate(template)
  // Installs the tables of the background jobs, which takes longer than all of ours.
  await (await openJobs(template, pino({ level: 'silent' }))).close()
  for (const each of project.vitest.projects) {
    each.provide('postgresUrl', postgres.url)
    each.provide('recordings', recordings)
  }
  return async () => {
    await postgres.stop()
    await rm(recordings, { recursive: true, force: true })
  }
}
