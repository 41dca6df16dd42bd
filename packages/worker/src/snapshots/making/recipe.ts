import { createHash } from 'node:crypto'
import type { SnapshotManifest } from '@paws/api'
import type { HeldSnapshot, SnapshotStore } from '../store.ts'
import { readTemplate } from './template.ts'

/** What is to be built, as it was claimed. */
export interface BuildOrder {
  snapshotId: string
  /** A folder of `snapshots/`; null for a config */
  template: string | null
  config: Config | null
  /** What its setup is run in; null for what is made from packages */
  base: { digest: string } | null
}

interface Config {
  organization: string
  setup: string
  requiredDomains: string[]
  resources: Resources
}

interface Resources {
  vcpus: number
  memoryMB: number
  diskMB: number
}

/** How an image comes to be. */
export type Recipe = PackageRecipe | SetupRecipe

interface Origin {
  /** What its manifest says of where it comes from */
  origin: Pick<SnapshotManifest, 'template' | 'config' | 'base'>
  /** Variables that its programs expect */
  env: Record<string, string>
  setup: string
}

/** Made from Debian's packages; the setup is run in the new image. */
export interface PackageRecipe extends Origin {
  suite: string
  packages: string[]
}

/** What the setup leaves of a sandbox of another snapshot. */
export interface SetupRecipe extends Origin {
  base: HeldSnapshot
  requiredDomains: string[]
  resources: Resources
}

/** Of the sandboxes that the setups of templates run in */
const templateResources: Resources = { vcpus: 2, memoryMB: 4096, diskMB: 20_480 }

/**
 * Finds out how what was ordered is made, and brings its base here.
 *
 * @throws when the order and this worker's templates don't fit together
 */
export async function readRecipe(order: BuildOrder, templatesDir: string, store: SnapshotStore): Promise<Recipe> {
  const base = order.base && (await store.ensure(order.base.digest))
  if (order.config) {
    if (!base) throw new Error(`The build of "${order.snapshotId}" names no base for its setup`)
    return configRecipe(order.config, base)
  }
  const { id, sha256, manifest, setup } = await readTemplate(templatesDir, order.template ?? order.snapshotId)
  const { from, requiredDomains, env } = manifest
  const origin = { template: { id, sha256 } }
  if ('suite' in from) return { origin, env, setup: setup.toString(), ...from }
  if (base?.manifest.template?.id !== from.template) {
    throw new Error(`The template "${id}" is made from "${from.template}", and the build names another base`)
  }
  return {
    origin: { ...origin, base: base.digest },
    env: { ...base.manifest.env, ...env },
    ...{ setup: setup.toString(), base, requiredDomains, resources: templateResources },
  }
}

function configRecipe(config: Config, base: HeldSnapshot): SetupRecipe {
  const { organization, setup, requiredDomains, resources } = config
  const content = JSON.stringify([setup, requiredDomains, base.digest])
  const sha256 = createHash('sha256').update(content).digest('hex')
  return {
    origin: { config: { organization, sha256 }, base: base.digest },
    env: base.manifest.env,
    ...{ setup, base, requiredDomains, resources },
  }
}
