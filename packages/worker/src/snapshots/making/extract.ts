import { X509Certificate } from 'node:crypto'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { snapshotFileLimitBytes } from '@paws/api'
import { exitCodeOf } from '../../sandbox/command.ts'
import type { Sandbox } from '../../sandbox/driver.ts'
import type { IdMap } from '../../sandbox/id-map.ts'
import { openToRange, runInRange } from '../../sandbox/id-range.ts'
import { confined } from '../confined.ts'
import { ended } from './clean.ts'
import { ForbiddenFound, guard } from './guard.ts'
import { eachLine, type OnLine } from './lines.ts'

export interface ExtractOptions {
  ids: IdMap
  /** What the sandbox was started from, unpacked */
  imageDir: string
  /** What the sandbox could write, beside what its base has */
  diskMB: number
  /** Of the authority of its network, which must not be in the image */
  certificate: string
  onLine: OnLine
  signal: AbortSignal
}

/** Files that an image may have. Each costs an inode on every worker that unpacks it. */
const mostInodes = 2_000_000
/** How long tar may take to end once its archive has. */
const farewellMs = 10_000
const memoryLimitBytes = 4 * 1024 ** 3

const tar = [
  ...['/usr/bin/tar', '--create', '--one-file-system', '--numeric-owner'],
  ...['--xattrs', '--xattrs-include=security.capability', '--xattrs-include=user.*'],
  ...['--directory', '/', '.'],
]

const squash = [
  ...['prlimit', `--as=${memoryLimitBytes}`, `--fsize=${snapshotFileLimitBytes}`, '--'],
  ...['mksquashfs', '-', 'rootfs.squashfs', '-tar', '-comp', 'zstd', '-Xcompression-level', '9', '-mem', '512M'],
  ...['-noappend', '-quiet', '-no-progress'],
  // An archive's own root is passed over.
  ...['-root-mode', '755', '-root-uid', '0', '-root-gid', '0'],
]

/**
 * Makes `rootfs.squashfs` in the folder `made` of all that a sandbox's disk holds. Its files come as an archive that a
 * program inside makes, so whatever they are, none is opened here; and what the archive says is read by a program that
 * sees nothing of this machine.
 *
 * @throws when the image would be too large, or hold the authority's certificate
 */
export async function extractImage(sandbox: Sandbox, made: string, options: ExtractOptions): Promise<void> {
  const { ids, diskMB, onLine, signal } = options
  await openToRange(made)
  const limitMB = diskMB + (await roomForBase(options))
  const archive = sandbox.exec({ argv: tar, env: {}, cwd: '/' })
  const said = eachLine(archive.stderr, onLine)
  // The archive's end tells of that too.
  said.catch(() => undefined)
  const stdin = guard({
    limitBytes: limitMB * 1024 ** 2,
    tooLong: `The image would be larger than ${limitMB} MB, which is what its base and its disk can hold.`,
    forbidden: tracesOf(options.certificate),
  })
  archive.stdout.once('error', (error) => stdin.destroy(error))
  archive.stdout.pipe(stdin)
  const hear = (line: string) => void (aboutRoot.test(line) || onLine(line))
  try {
    await runInRange(ids, confined(squash), { name: 'mksquashfs', cwd: made, stdin, onLine: hear, signal })
  } catch (error) {
    archive.kill('SIGKILL')
    if (error instanceof ForbiddenFound) throw await leftCertificate(sandbox, options)
    throw error
  } finally {
    // What follows an archive's end is nobody's.
    archive.stdout.resume()
  }
  const late = setTimeout(() => archive.kill('SIGKILL'), farewellMs)
  const exitCode = exitCodeOf(await archive.exit)
  clearTimeout(late)
  await said
  // Cut short, an archive can still look whole.
  if (exitCode !== 0) throw new Error(`The files of the image could not be read: tar ended with exit code ${exitCode}.`)
  const inodes = await inodesOf(join(made, 'rootfs.squashfs'))
  if (inodes > mostInodes) throw new Error(`The image has ${inodes} files, and ${mostInodes} is the most.`)
}

/** No disk limit counts what the base has; in an archive small files take twice their size and more. */
async function roomForBase({ ids, imageDir, signal }: ExtractOptions): Promise<number> {
  let megabytes = 0
  const onLine = (line: string) => {
    megabytes = Number.parseInt(line, 10)
  }
  await runInRange(ids, ['du', '--summarize', '--block-size=1M', '.'], { cwd: imageDir, onLine, signal })
  return 2 * megabytes
}

const aboutRoot = /^Empty tar filename/

/** What a file has in which the certificate stands, as text or as bytes. */
function tracesOf(certificate: string): Buffer[] {
  return [Buffer.from(textTrace(certificate)), new X509Certificate(certificate).raw.subarray(-64)]
}

// The end of its signature, which no other certificate has.
function textTrace(certificate: string): string {
  const lines = certificate.trim().split(/\r?\n/)
  return lines.at(-3) ?? certificate
}

async function leftCertificate(sandbox: Sandbox, { certificate }: ExtractOptions): Promise<Error> {
  const paths: string[] = []
  const find = [
    '/usr/bin/grep',
    '-rlF',
    '--exclude-dir=proc',
    '--exclude-dir=sys',
    '--',
    textTrace(certificate),
    '/etc',
  ]
  const search = [...find, '/usr', '/opt', '/root', '/home', '/var', '/srv']
  await ended(sandbox, search, (line) => void (paths.length < 5 && line.startsWith('/') && paths.push(line)))
  const where = paths.length > 0 ? paths.join(', ') : 'some file'
  return new Error(
    `The image would hold the certificate of the network that it was built in: ${where} has it. Sessions have ` +
      'another, so let the setup use the one at $SSL_CERT_FILE instead of a copy.',
  )
}

/** Told by the image's first bytes, as the program here wrote them. */
async function inodesOf(squashfs: string): Promise<number> {
  const file = await open(squashfs)
  try {
    const { buffer } = await file.read(Buffer.alloc(8), 0, 8, 0)
    if (buffer.toString('latin1', 0, 4) !== 'hsqs') throw new Error('The image is no squashfs.')
    return buffer.readUInt32LE(4)
  } finally {
    await file.close()
  }
}
