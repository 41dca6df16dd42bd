/** Every error code with the HTTP statuses it is answered with. Imports nothing, so that a browser can have it alone. */
export const errorCodes = {
  VALIDATION_ERROR: [400],
  UNAUTHORIZED: [401],
  FORBIDDEN: [403],
  SESSION_NOT_FOUND: [404],
  SNAPSHOT_NOT_FOUND: [404],
  BUILD_NOT_FOUND: [404],
  ORGANIZATION_NOT_FOUND: [404],
  API_KEY_NOT_FOUND: [404],
  WORKER_NOT_FOUND: [404],
  SECRET_NOT_FOUND: [404],
  FILE_NOT_FOUND: [404],
  NOT_FOUND: [404],
  METHOD_NOT_ALLOWED: [405],
  CONFLICT: [409],
  INVALID_STATE: [409],
  LEASE_LOST: [409],
  IDEMPOTENCY_CONFLICT: [409, 422],
  PAYLOAD_TOO_LARGE: [413],
  UNSUPPORTED_MEDIA_TYPE: [415],
  FILE_REFUSED: [422],
  INTERNAL_ERROR: [500],
  NOT_READY: [503],
  CAPACITY_EXHAUSTED: [503],
  WORKER_UNREACHABLE: [503],
} as const satisfies Record<string, readonly number[]>

export type ErrorCode = keyof typeof errorCodes
