import { execFile } from 'node:child_process'
import { access, readFile, stat } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { promisify } from 'node:util'
import { clone } from '../clone.ts'
import type { Finding } from './finding.ts'

const run = promisify(execFile)

export async function checkNamespaces(): Promise<Finding> {
  const name = 'User namespaces'
  const switches: [file: string, bad: string, mend: string][] = [
    ['/proc/sys/user/max_user_namespaces', '0', 'sysctl -w user.max_user_namespaces=10000'],
    ['/proc/sys/kernel/unprivileged_userns_clone', '0', 'sysctl -w kernel.unprivileged_userns_clone=1'],
    [
      '/proc/sys/kernel/apparmor_restrict_unprivileged_userns',
      '1',
      'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0',
    ],
  ]
  // Only the first stops root.
  for (const [file, bad, mend] of process.getuid?.() === 0 ? switches.slice(0, 1) : switches) {
    // A kernel without the switch has nothing to switch off.
    const value = await readFile(file, 'utf8').catch(() => '')
    if (value.trim() !== bad) continue
    return {
      name,
      state: 'missing',
      found: `${file} is ${bad}`,
      means: 'No sandbox can start.',
      mend: `As root: ${mend}`,
    }
  }
  return { name, state: 'ok', found: 'allowed' }
}

export async function checkSubIds(): Promise<Finding> {
  const name = 'Ids of sandboxes'
  if (process.getuid?.() === 0) return { name, state: 'ok', found: 'from 1879048192 on, as root' }
  const { username, uid } = userInfo()
  for (const file of ['/etc/subuid', '/etc/subgid']) {
    const lines = (await readFile(file, 'utf8').catch(() => '')).split('\n').map((line) => line.split(':'))
    if (lines.some(([owner, , count]) => (owner === username || owner === `${uid}`) && Number(count) >= 65_536))
      continue
    return {
      name,
      state: 'missing',
      found: `${file} gives ${username} no 65536 ids`,
      means: 'No sandbox can start: root inside must be somebody harmless outside.',
      mend: `As root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${username}`,
    }
  }
  return { name, state: 'ok', found: `those of ${username} in /etc/subuid and /etc/subgid` }
}

export async function checkControlGroups(): Promise<Finding> {
  const unified = await stat('/sys/fs/cgroup/cgroup.controllers').catch(() => undefined)
  const legacy = await stat('/sys/fs/cgroup/memory').catch(() => undefined)
  const found = unified ? 'version 2' : legacy ? 'version 1' : 'none are mounted'
  if (unified || legacy) return { name: 'Control groups', state: 'ok', found }
  const means = 'CPU, memory and the number of processes of a sandbox can’t be limited.'
  return { name: 'Control groups', state: 'limited', found, means, mend: 'Mount them: systemd does it at boot.' }
}

/** Lets the worker's own code start a sandbox, and passes on what it says that this host can't enforce. */
export async function checkSandbox(): Promise<Finding[]> {
  const name = 'A sandbox'
  const { guestAgent, slotHelper } = clone
  const built = await Promise.all([access(guestAgent), access(slotHelper)]).then(
    () => true,
    () => false,
  )
  if (!built) {
    const found = 'not tried: its agent is not compiled yet'
    return [{ name, state: 'limited', found, means: 'Whether one starts is not known.', mend: 'Run ./paws up once.' }]
  }
  const args = ['--guest-agent', guestAgent, '--slot-helper', slotHelper, '--folder', tmpdir()]
  const { stdout } = await run(process.execPath, [clone.probe, ...args], {
    timeout: 30_000,
  })
  const result = JSON.parse(stdout) as { error: string } | { isolation: string; limitations: string[]; startMs: number }
  if ('error' in result) {
    const mend = 'Mend what is named above first; else this message is the reason.'
    return [{ name, state: 'missing', found: `did not start: ${result.error}`, means: 'No session can run.', mend }]
  }
  const started = `started in ${result.startMs} ms, isolation "${result.isolation}"`
  return [
    { name, state: 'ok', found: started },
    ...result.limitations.map((limitation): Finding => ({ name: 'Limits', state: 'limited', found: limitation })),
  ]
}
