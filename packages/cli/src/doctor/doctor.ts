import type { CliConfig } from '../config.ts'
import type { Finding } from './finding.ts'
import { checkControlGroups, checkNamespaces, checkSandbox, checkSubIds } from './isolation.ts'
import { checkKvm, checkNode, checkSize } from './machine.ts'
import { checkDataFolder, checkPort, checkSpace } from './place.ts'
import { checkPrograms } from './programs.ts'

type Check = (config: CliConfig) => Finding | Finding[] | Promise<Finding | Finding[]>

const checks: Check[] = [
  checkNode,
  checkSize,
  checkPrograms,
  checkNamespaces,
  checkSubIds,
  checkControlGroups,
  checkKvm,
  checkDataFolder,
  checkSpace,
  checkPort,
  checkSandbox,
]

/** Looks at everything that paws needs of this host. A check that fails itself is a finding too. */
export async function examine(config: CliConfig): Promise<Finding[]> {
  const found = await Promise.all(checks.map((check) => attempt(check, config)))
  return found.flat()
}

async function attempt(check: Check, config: CliConfig): Promise<Finding | Finding[]> {
  try {
    return await check(config)
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    return { name: check.name, state: 'limited', found: `could not be checked: ${message}` }
  }
}
