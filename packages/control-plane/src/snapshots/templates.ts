/** The templates that ship with paws, each a folder of `snapshots/`. A new one is added here. */
export const templates = {
  minimal: { description: 'Debian 12 with bash, coreutils, python3, git, curl, jq, ca-certificates and iproute2' },
} as const satisfies Record<string, { description: string }>

export type TemplateId = keyof typeof templates

export function listTemplates(): { id: string; description: string }[] {
  return Object.entries(templates).map(([id, { description }]) => ({ id, description }))
}

export function isTemplate(id: string): id is TemplateId {
  return Object.hasOwn(templates, id)
}
