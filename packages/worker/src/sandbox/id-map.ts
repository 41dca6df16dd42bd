import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { userInfo } from 'node:os'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** How many ids a sandbox has, from 0 */
const COUNT = 65536
/**
 * Outside ids of a worker that runs as root. Above those that accounts, their sub-ids and systemd's containers get:
 * shared with an account, they would let its programs kill sandboxes and change snapshots.
 */
const ROOT_START = 0x7000_0000

/** Which outside ids the ids inside a sandbox are. Files of an unpacked snapshot belong to these. */
export interface IdMap {
  /** Outside id of root inside */
  uid: number
  gid: number
  count: number
  /**
   * Outside id from which each slot's own follows, by adding the number of its process: the kernel counts against it
   * what it counts against no sandbox alone. Only root can give a namespace to another
   */
  owners?: number
  /** Gives the map to a user namespace that process `pid` has just made */
  write(pid: number): Promise<void>
}

/** The sub-ids that this user may use: fixed ones as root, otherwise those of /etc/subuid and /etc/subgid. */
export async function openIdMap(): Promise<IdMap> {
  return process.getuid?.() === 0 ? rootMap() : userMap()
}

// Written straight into the map: util-linux would want an /etc/subuid entry, which root hasn't.
function rootMap(): IdMap {
  const line = `0 ${ROOT_START} ${COUNT}\n`
  return {
    uid: ROOT_START,
    gid: ROOT_START,
    count: COUNT,
    owners: ROOT_START + COUNT,
    async write(pid) {
      await writeFile(`/proc/${pid}/gid_map`, line)
      await writeFile(`/proc/${pid}/uid_map`, line)
    },
  }
}

async function userMap(): Promise<IdMap> {
  const { username, uid: own } = userInfo()
  const uid = await subIds('/etc/subuid', username, own)
  const gid = await subIds('/etc/subgid', username, own)
  return {
    uid,
    gid,
    count: COUNT,
    async write(pid) {
      await run('newgidmap', [`${pid}`, '0', `${gid}`, `${COUNT}`])
      await run('newuidmap', [`${pid}`, '0', `${uid}`, `${COUNT}`])
    },
  }
}

async function subIds(file: string, username: string, uid: number): Promise<number> {
  // Without the file nobody has any.
  const text = await readFile(file, 'utf8').catch(() => '')
  for (const line of text.split('\n')) {
    const [owner, start, count] = line.split(':')
    if ((owner === username || owner === `${uid}`) && Number(count) >= COUNT) return Number(start)
  }
  throw new Error(
    `${file} gives the user ${username} no ${COUNT} sub-ids, and a sandbox needs them. ` +
      `As root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${username}`,
  )
}
