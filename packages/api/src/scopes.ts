/** What a key may be allowed to do, by resource and verb. Imports nothing. */
export const scopes = {
  'sessions:read': 'Read sessions, their output, events and logs',
  'sessions:write': 'Create and cancel sessions, run commands and move files in them',
  'snapshots:read': 'Read templates, snapshots and builds',
  'snapshots:write': 'Build snapshots; a built-in one that is ready only in the first organization',
  'secrets:read': 'List the names of stored secrets',
  'secrets:write': 'Store, replace and delete secrets',
  'organizations:read': 'Read the organization and list its API keys',
  'organizations:write': 'Change the organization, make and revoke API keys, read and rotate the webhook secret',
  'fleet:admin': 'Operate the fleet: organizations, workers, enrolment; only in the first organization',
} as const

export type Scope = keyof typeof scopes
export const allScopes = Object.keys(scopes) as Scope[]

/** Scopes that only keys of the first organization, the operator's, can have. */
export const operatorScopes = ['fleet:admin'] as const satisfies Scope[]
