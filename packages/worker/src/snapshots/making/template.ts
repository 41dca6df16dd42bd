import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TemplateManifest } from '@paws/api'

export interface Template {
  id: string
  manifest: TemplateManifest
  setup: Buffer
  /** Over both files, as hex */
  sha256: string
}

/**
 * Reads a built-in template.
 *
 * @param directory the folder `snapshots/` of paws
 * @throws when there is none of that name, or its manifest is wrong
 */
export async function readTemplate(directory: string, id: string): Promise<Template> {
  if (!/^[a-z][a-z0-9-]*$/.test(id)) throw new Error(`"${id}" is no name of a template`)
  const [manifest, setup] = await Promise.all(
    ['manifest.json', 'setup.sh'].map((file) =>
      readFile(join(directory, id, file)).catch((cause: Error) => {
        throw new Error(`The template "${id}" is not complete on this worker: ${cause.message}`, { cause })
      }),
    ),
  )
  if (!manifest || !setup) throw new Error(`The template "${id}" is not complete on this worker`)
  const parsed = TemplateManifest.safeParse(JSON.parse(manifest.toString()))
  if (!parsed.success) throw new Error(`The manifest of the template "${id}" is wrong: ${parsed.error.message}`)
  const sha256 = createHash('sha256').update(`${manifest.length}\n`).update(manifest).update(setup).digest('hex')
  return { id, manifest: parsed.data, setup, sha256 }
}
