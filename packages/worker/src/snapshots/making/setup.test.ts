import { createReadStream } from 'node:fs'
import { chmod, mkdtemp, readdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { removeTree, runInRange } from '../../sandbox/id-range.ts'
import {
  type BuildOptions,
  type Built,
  buildSnapshot,
  type HeldSnapshot,
  openSnapshotStore,
  type SnapshotStore,
} from '../index.ts'
import { minimalImage, templatesDir } from '../testing/minimal-image.ts'
import { openBuilder } from '../testing/template-image.ts'

const log = pino({ level: 'silent' })
let dataDir: string
let minimal: HeldSnapshot
let store: SnapshotStore
let driver: Awaited<ReturnType<typeof openBuilder>>

beforeAll(async () => {
  minimal = await minimalImage()
  dataDir = await mkdtemp(join(tmpdir(), 'paws-setup-'))
  await chmod(dataDir, 0o711)
  store = await openSnapshotStore({
    dataDir,
    log,
    fetchFile: async (_, file) => createReadStream(join(minimal.squashfs, '..', file)),
  })
  await store.ensure(minimal.digest)
  driver = await openBuilder(dataDir)
}, 300_000)

afterAll(async () => {
  await driver.close()
  await store.close()
  for (const name of await readdir(join(dataDir, 'snapshots'))) {
    await removeTree(store.ids, join(dataDir, 'snapshots', name))
  }
  await removeTree(store.ids, dataDir)
})

// However a build ends, it leaves neither files nor a sandbox.
afterEach(async () => {
  expect(await readdir(join(dataDir, 'snapshots/.staging'))).toEqual([])
})

const said: string[] = []
const steps: string[] = []

/** Builds a config of `minimal` in a sandbox with a way out. */
function build(setup: string, options: Partial<BuildOptions> = {}): Promise<Built> {
  said.length = 0
  steps.length = 0
  const resources = { vcpus: 2, memoryMB: 1024, diskMB: 256 }
  const config = { organization: 'org-1', setup, requiredDomains: [], resources }
  return buildSnapshot({
    ...{ store, driver, templatesDir, log },
    order: { snapshotId: 'own', template: null, config, base: minimal },
    onProgress: ({ step }) => void (steps.at(-1) === step || steps.push(step)),
    onLine: (line) => void said.push(line),
    ...options,
  })
}

/** What a shell says in the image, as its own root and without a network. */
async function inside({ imageDir }: HeldSnapshot, script: string): Promise<string[]> {
  const lines: string[] = []
  await runInRange(store.ids, ['sh', '-c', script], { cwd: imageDir, onLine: (line) => lines.push(line) })
  return lines
}

test('what a setup leaves becomes the image, without the network and the habits of its sandbox', async () => {
  const built = await build(`#!/bin/bash
set -eu
pwd; echo "$HOME $PATH"; echo to-stderr >&2
cat "$SSL_CERT_FILE"
echo made > /opt/made; chown 33:34 /opt/made; chmod 4750 /opt/made
ln -s /etc/shadow /opt/link; mkfifo /opt/fifo; mknod /opt/device c 1 3 2> /dev/null || echo no device
python3 -c 'import os, socket; os.setxattr("/opt/made", "user.kept", b"yes"); socket.socket(socket.AF_UNIX).bind("/opt/socket")'
update-ca-certificates > /dev/null 2>&1
rm -rf /output; ln -s /etc /output
echo junk | tee /tmp/junk /var/tmp/junk /workspace/junk /run/junk /root/.bash_history /var/log/junk > /dev/null
printf 'progress 1\\rprogress 2\\r\\nlast without end'
(while echo alive >> /opt/alive; do sleep 0.01; done) &
setsid sleep 1000 > /dev/null 2>&1 &
`)
  expect(steps).toEqual([
    ...['Fetching the base', 'Starting a sandbox', 'Running the setup', 'Cleaning up', 'Making the image'],
    'Unpacking the image',
  ])
  expect(said).toEqual(
    expect.arrayContaining(['/workspace', 'to-stderr', 'no device', 'progress 2', 'last without end']),
  )
  expect(said).toContain(`/root ${minimal.manifest.env.PATH}`)
  const { config, base, env, packages, architecture, template } = built.manifest
  expect(config).toEqual({ organization: 'org-1', sha256: expect.stringMatching(/^[0-9a-f]{64}$/) })
  expect([base, template]).toEqual([minimal.digest, undefined])
  expect([env, packages, architecture]).toEqual([
    ...[minimal.manifest.env, minimal.manifest.packages, minimal.manifest.architecture],
  ])

  expect(await inside(built, 'cd opt; cat made; stat -c "%u %g %a" made; readlink link; stat -c %F fifo')).toEqual([
    ...['made', '33 34 4750', '/etc/shadow', 'fifo'],
  ])
  expect(await inside(built, 'python3 -c "import os; print(os.getxattr(\\"opt/made\\", \\"user.kept\\"))"')).toEqual([
    "b'yes'",
  ])
  expect(await inside(built, 'ls opt')).toEqual(['alive', 'fifo', 'link', 'made'])
  expect(
    await inside(built, 'ls -A tmp var/tmp workspace run; find var/log -type f; ls -A root; stat -c "%a %u" . tmp'),
  ).toEqual([...['run:', '', 'tmp:', '', 'var/tmp:', '', 'workspace:', '.bashrc', '.profile', '755 0', '1777 0']])
  expect(await inside(built, 'cat etc/machine-id etc/resolv.conf; ls etc/apt/apt.conf.d | grep paws')).toEqual([
    '90paws',
  ])

  // Of the network's own authority nothing is left, and the system's store is whole again.
  const certificate = said.slice(
    said.indexOf('-----BEGIN CERTIFICATE-----') + 1,
    said.indexOf('-----END CERTIFICATE-----'),
  )
  expect(certificate.length).toBeGreaterThan(5)
  expect(
    await inside(built, `grep -rlF -- '${certificate.at(-1)}' . || true; ls etc/ssl/certs | grep paws || true`),
  ).toEqual([])
  expect(await inside(built, 'cat etc/ssl/certs/ca-certificates.crt')).toEqual(
    await inside(minimal, 'cat etc/ssl/certs/ca-certificates.crt'),
  )
}, 180_000)

test('a setup that fails says how, and what it could not reach and why', async () => {
  const failing = build(`#!/usr/bin/python3
import sys, urllib.request
for _ in range(2):
  try: urllib.request.urlopen('https://not-asked-for.example/', timeout=5)
  except Exception as error: print('no way', flush=True)
print('the last words', file=sys.stderr)
sys.exit(3)
`)
  await expect(failing).rejects.toThrow(/^The setup ended with exit code 3: .*the last words$/s)
  expect(said).toContain('no way')
  const refused = 'refused: not-asked-for.example (name-not-allowed); add it to requiredDomains'
  expect(said.filter((line) => line.startsWith('refused'))).toEqual([refused])
})

test('a setup that takes too long or too much memory, and a build that is stopped, end for that reason', async () => {
  await expect(build('sleep 1000', { setupLimitMs: 1_000 })).rejects.toThrow('The setup took longer than 1 minutes')
  const stop = new AbortController()
  const onLine = () => stop.abort(new Error('enough'))
  await expect(build('echo begun; sleep 1000', { onLine, signal: stop.signal })).rejects.toThrow('enough')
  await expect(build('kill -KILL -1; tail /dev/zero')).rejects.toThrow(/exit code|out of memory/)
})

test('an image that would hold the certificate of its network is refused, and the file named', async () => {
  const copied = build('mkdir -p /opt/tool; cat $SSL_CERT_FILE /etc/passwd > /opt/tool/ca.pem')
  await expect(copied).rejects.toThrow(
    /the certificate of the network that it was built in: \/opt\/tool\/ca.pem has it/,
  )
}, 60_000)

test('an image that is larger than its disk allows is refused', async () => {
  const large = build('truncate --size 64G /opt/sparse')
  await expect(large).rejects.toThrow(/The image would be larger than \d+ MB, which is what its base and its disk/)
}, 60_000)

/** Python that makes an archive, in place of the image's own tar. */
const withTar = (source: string) => `
cat > /usr/bin/tar <<'EOF'
#!/usr/bin/python3
import io, sys, tarfile
archive = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.PAX_FORMAT)
def add(name, type=tarfile.REGTYPE, content=b'', **more):
  info = tarfile.TarInfo(name)
  info.type, info.size = type, len(content)
  for key, value in more.items(): setattr(info, key, value)
  archive.addfile(info, io.BytesIO(content))
add('./etc', tarfile.DIRTYPE, mode=0o755)
${source}
archive.close()
EOF
`

test.each([
  ['a device', `add('./null', tarfile.CHRTYPE, devmajor=1, devminor=3)`, /character device.*Operation not permitted/],
  [
    'a path that leads up',
    `add('./a/../../../../tmp/paws-escaped', content=b'x')`,
    /pathname can't have '.' or '..' in it/,
  ],
  [
    'a path through a link',
    `add('./l', tarfile.SYMTYPE, linkname='/tmp')\nadd('./l/paws-escaped')`,
    /exists in the tar file/,
  ],
  ['an owner out of range', `add('./alien', uid=70000, content=b'x')`, /change uid and gids.*Invalid argument/],
  ['an attribute of the host', `add('./x', pax_headers={'SCHILY.xattr.trusted.x': 'y'})`, /write xattr trusted.x/],
  [
    'half an archive',
    `add('./x', content=b'x' * 99999)\nsys.stdout.buffer.flush()\nsys.exit(2)`,
    /tar ended with exit code 2|FATAL|end of/i,
  ],
  ['no archive', `sys.stdout.buffer.write(b'x' * 4096)\nsys.exit(0)`, /checksum|FATAL|tar/i],
])(
  'an image whose tar makes %s is refused',
  async (_, source, reason) => {
    await expect(build(withTar(source))).rejects.toThrow(reason)
    await expect(readdir(tmpdir())).resolves.not.toContain('paws-escaped')
  },
  60_000,
)

test('what is named like a file of this machine is a file of the image', async () => {
  const built = await build(
    withTar(
      `add('/etc/paws-mark', content=b'x')\nadd('../../../../../../etc/paws-mark-2', content=b'x')\nadd('./h', tarfile.LNKTYPE, linkname='/etc/passwd')`,
    ),
  )
  expect(await inside(built, 'find . -mindepth 1')).toEqual(['./etc', './etc/paws-mark', './etc/paws-mark-2'])
  expect((await readdir('/etc')).filter((name) => name.startsWith('paws-mark'))).toEqual([])
}, 60_000)
