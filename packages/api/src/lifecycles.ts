/** Which states there are and what may be done in which. Imports nothing, so that a browser can have it alone. */

export const sessionStatuses = ['pending', 'running', 'completed', 'failed', 'timeout', 'cancelled'] as const
export type SessionStatus = (typeof sessionStatuses)[number]

/** States that are never left again. */
export const sessionEnded = ['completed', 'failed', 'timeout', 'cancelled'] as const satisfies SessionStatus[]

/** What may be done with a session in which state. The server's 409, the SDK and the dashboard's buttons read this. */
export const sessionCan = {
  claim: ['pending'],
  cancel: ['pending', 'running'],
  finish: ['pending', 'running'],
  exec: ['running'],
  terminal: ['running'],
  files: ['running'],
} as const satisfies Record<string, readonly SessionStatus[]>

export const buildStatuses = ['queued', 'building', 'ready', 'failed'] as const
export type BuildStatus = (typeof buildStatuses)[number]
export const buildEnded = ['ready', 'failed'] as const satisfies BuildStatus[]

export const workerStatuses = ['healthy', 'draining', 'unhealthy'] as const
export type WorkerStatus = (typeof workerStatuses)[number]
export const workerCan = {
  drain: ['healthy', 'unhealthy'],
  undrain: ['draining', 'unhealthy'],
} as const satisfies Record<string, readonly WorkerStatus[]>
