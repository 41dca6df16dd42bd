import { randomBytes } from 'node:crypto'
import { type EgressRules, isPreset, type Preset } from '@paws/api'
import type { SlotCredential, SlotRules } from './messages.ts'
import type { PresetHosts } from './presets.ts'

/** A stand-in as long as the value fits wherever the value would; a shorter one could turn up by chance. */
const shortestStandIn = 24

/** What the egress process is told of a sandbox's rules, and what goes inside. */
export interface Resolved {
  rules: SlotRules
  env: Record<string, string>
}

/** Puts hosts in the place of presets, and makes up what stands inside for placeholders. */
export async function resolveRules(
  { allowOut, credentials, auditLog }: EgressRules,
  presetOf: (preset: Preset) => Promise<PresetHosts>,
): Promise<Resolved> {
  const asked = allowOut.filter(isPreset).map((text) => presetOf(text.slice('preset:'.length) as Preset))
  const presets = await Promise.all(asked)
  const operators = [...new Set(presets.flatMap(({ hosts }) => hosts))]
  const standIns = new Map<string, string>()
  const slotCredentials: Record<string, SlotCredential> = {}
  for (const [host, { headers, placeholders, paths, methods }] of Object.entries(credentials)) {
    const pairs = Object.entries(placeholders).map(([name, value]) => {
      // One variable has one value inside, whatever it becomes on the way to this host or another.
      const standIn = standIns.get(name) ?? standInFor(value)
      standIns.set(name, standIn)
      return { standIn, value }
    })
    slotCredentials[host] = { headers, placeholders: pairs, paths, methods }
  }
  const names = allowOut.filter((text) => !isPreset(text))
  return {
    rules: { allow: [...new Set([...names, ...operators])], operators, credentials: slotCredentials, auditLog },
    env: Object.fromEntries([...presets.flatMap(({ env }) => Object.entries(env)), ...standIns]),
  }
}

function standInFor(value: string): string {
  return value.length < shortestStandIn ? `paws-${random(shortestStandIn)}` : random(value.length)
}

/** Characters that no encoding of a URL, a form or JSON changes. */
function random(length: number): string {
  return randomBytes(length).toString('hex').slice(0, length)
}
