import { access, constants } from 'node:fs/promises'
import { availableParallelism, totalmem } from 'node:os'
import type { Finding } from './finding.ts'

const leastNode = 24

export function checkNode(): Finding {
  const major = Number.parseInt(process.versions.node, 10)
  const found = `Node.js ${process.versions.node}`
  if (major >= leastNode) return { name: 'Node.js', state: 'ok', found }
  const mend = 'Start by ./paws, which brings one.'
  return { name: 'Node.js', state: 'missing', found, means: `paws needs ${leastNode} or later.`, mend }
}

export function checkSize(): Finding {
  const memoryGB = totalmem() / 1024 ** 3
  const found = `${availableParallelism()} processors, ${memoryGB.toFixed(1)} GB of memory`
  if (memoryGB >= 1.8) return { name: 'Machine', state: 'ok', found }
  const means = 'PostgreSQL, control plane and worker alone take about half a GB; little is left for sandboxes.'
  return { name: 'Machine', state: 'limited', found, means, mend: 'Give the machine 2 GB or more.' }
}

/** Present is not proven: whether a guest really runs on it only running one would tell. */
export async function checkKvm(): Promise<Finding> {
  const name = 'KVM'
  const state = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => 'usable' as const,
    (error: NodeJS.ErrnoException) => error.code,
  )
  if (state === 'usable')
    return { name, state: 'ok', found: '/dev/kvm is there; no guest has been tried on it, and no driver uses it yet' }
  const means = 'Sandboxes are processes, not virtual machines: the host’s kernel stands between them and you.'
  if (state === 'EACCES') {
    const mend = 'As root: usermod --append --groups kvm <user>, then sign in again.'
    return { name, state: 'limited', found: '/dev/kvm is not open to this user', means, mend }
  }
  const mend = 'Use a machine with virtualization switched on (or nested virtualization, in a cloud).'
  return { name, state: 'limited', found: 'there is no /dev/kvm', means, mend }
}
