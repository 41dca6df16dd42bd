import { textForms } from '../forms.ts'
import { type PlaceKind, type Subject, textItem } from '../place.ts'
import type { Item } from '../search.ts'

/** What programs in the sandbox are given and can see. All of it is asked of programs in there. */

export const environment: PlaceKind = {
  what: 'the environment of programs in the sandbox',
  when: ['running'],
  holds: textForms,
  async *items(subject) {
    yield textItem('env', await all(inside(subject, 'env --null')))
  },
}

// Of each process its arguments, environment, name, maps, mounts and where its descriptors lead; and the keyring.
const lookAround = `for process in /proc/[0-9]*; do
  cd "$process" || continue
  cat cmdline environ comm maps mountinfo cgroup status
  ls -l fd cwd exe root
done 2>/dev/null
cat /proc/cmdline /proc/keys /proc/net/* 2>/dev/null
true`

export async function* procInside(subject: Subject): AsyncGenerator<Item> {
  yield textItem('/proc, as seen inside', await all(inside(subject, lookAround)))
}

/** Whatever has changed since the session began, on every file system that is not the kernel's own. */
export async function* filesInside(subject: Subject): AsyncGenerator<Item> {
  const since = Math.floor(subject.began.getTime() / 1000)
  const roots = '$(findmnt --noheadings --raw --output TARGET --types ext4,overlay,tmpfs,xfs,btrfs || echo /)'
  const find = `find ${roots} -xdev -type f -newerct @${since} -print0`
  const pack = `${find} | tar --create --null --files-from=- --file=- --ignore-failed-read`
  yield { where: 'files of the sandbox', read: () => inside(subject, `${pack}; true`) }
}

/** Runs a script in the sandbox and gives its output, which may be any bytes: the way there takes only text. */
async function* inside({ client, sessionId }: Subject, script: string): AsyncGenerator<Buffer> {
  const command = ['bash', '-c', `{ ${script}\n} 2>/dev/null | base64 --wrap=0`]
  let rest = ''
  for await (const { event, data } of client.sessions.exec(sessionId, { command, cwd: '/' })) {
    if (event === 'error') throw new Error(`The sandbox could not be looked at: ${data.message}`)
    if (event === 'exit' && data.exitCode !== 0)
      throw new Error(`Looking around in the sandbox failed: ${data.exitCode}`)
    if (event !== 'stdout') continue
    rest += data.text
    const whole = rest.length - (rest.length % 4)
    yield Buffer.from(rest.slice(0, whole), 'base64')
    rest = rest.slice(whole)
  }
}

async function all(content: AsyncIterable<Buffer>): Promise<Buffer> {
  const pieces: Buffer[] = []
  for await (const bytes of content) pieces.push(bytes)
  return Buffer.concat(pieces)
}
