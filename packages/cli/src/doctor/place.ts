import { access, constants, stat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import { createClient } from '@paws/sdk'
import { type CliConfig, readCredentials } from '../config.ts'
import { findPort } from '../up/services.ts'
import type { Finding } from './finding.ts'

const neededGB = 2
const comfortableGB = 10

export async function checkDataFolder({ dataDir }: CliConfig): Promise<Finding> {
  const name = 'Data folder'
  const existing = await nearest(dataDir)
  const writable = await access(existing, constants.W_OK).then(
    () => true,
    () => false,
  )
  if (!writable) {
    const mend = 'Choose another: PAWS_DATA=~/paws-data ./paws up'
    return { name, state: 'missing', found: `${existing} is not writable`, means: 'Nothing can be kept.', mend }
  }
  const closed = process.getuid?.() === 0 ? await closedToOthers(existing) : undefined
  if (closed) {
    const means = 'PostgreSQL runs as a user of its own and must reach its data.'
    const mend = `chmod o+x ${closed}, or choose another folder by PAWS_DATA`
    return { name, state: 'missing', found: `${closed} is closed to others`, means, mend }
  }
  return { name, state: 'ok', found: dataDir }
}

export async function checkSpace({ dataDir }: CliConfig): Promise<Finding> {
  const { bavail, bsize } = await statfs(await nearest(dataDir))
  const freeGB = (bavail * bsize) / 1024 ** 3
  const found = `${freeGB.toFixed(1)} GB free`
  if (freeGB >= comfortableGB) return { name: 'Disk space', state: 'ok', found }
  const means = 'Snapshots, sandboxes’ disks and the database may fill it.'
  const mend = 'Make room, or choose a folder on another disk by PAWS_DATA.'
  return { name: 'Disk space', state: freeGB < neededGB ? 'missing' : 'limited', found, means, mend }
}

export async function checkPort(config: CliConfig): Promise<Finding> {
  const name = 'Port'
  try {
    await findPort(config.host, config.port)
    return { name, state: 'ok', found: `${config.port} is free` }
  } catch (error) {
    const known = readCredentials(config.installFile)
    const own = known && new URL(known.url).port === `${config.port}` && (await answers(known.url))
    if (own) return { name, state: 'ok', found: `paws runs on ${known.url}` }
    return { name, state: 'missing', found: (error as Error).message, means: 'The control plane can’t listen there.' }
  }
}

async function answers(url: string): Promise<boolean> {
  return createClient({ url, retries: 0 })
    .ready()
    .then(
      () => true,
      () => false,
    )
}

async function nearest(folder: string): Promise<string> {
  for (let path = folder; ; path = dirname(path)) {
    if (path === '/' || (await stat(path).catch(() => undefined))) return path
  }
}

async function closedToOthers(folder: string): Promise<string | undefined> {
  for (let path = folder; path !== '/'; path = dirname(path)) {
    if (!((await stat(path)).mode & 0o001)) return path
  }
  return undefined
}
