import type { TemplateManifest } from '@paws/api'
import claudeCode from '../../../../snapshots/claude-code/manifest.json' with { type: 'json' }
import fullstack from '../../../../snapshots/fullstack/manifest.json' with { type: 'json' }
import minimal from '../../../../snapshots/minimal/manifest.json' with { type: 'json' }
import node from '../../../../snapshots/node/manifest.json' with { type: 'json' }
import python from '../../../../snapshots/python/manifest.json' with { type: 'json' }

export type TemplateId = 'minimal' | 'node' | 'python' | 'fullstack' | 'claude-code'

/** The templates that ship with paws, each a folder of `snapshots/`. A new one is added here. */
export const templates: { [K in TemplateId]: TemplateManifest } = {
  minimal,
  node,
  python,
  fullstack,
  'claude-code': claudeCode,
}

export function listTemplates(): { id: string; description: string }[] {
  return Object.entries(templates).map(([id, { description }]) => ({ id, description }))
}

export function isTemplate(id: string): id is TemplateId {
  return Object.hasOwn(templates, id)
}

/** Id of the template that a template's setup is run in; null for one that is made from packages. */
export function baseOf(id: TemplateId): string | null {
  const { from } = templates[id]
  return 'template' in from ? from.template : null
}

/** What may stand in the place of one that doesn't exist, for error messages. */
export const knownTemplates = () => `Templates: ${Object.keys(templates).join(', ')}.`
