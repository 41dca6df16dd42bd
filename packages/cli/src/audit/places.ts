import type { Place, PlaceKind } from './place.ts'
import { api } from './places/api.ts'
import { callbacks } from './places/callbacks.ts'
import { database } from './places/database.ts'
import { files, logs, proc } from './places/host.ts'
import { environment } from './places/inside.ts'
import { blobs, snapshots } from './places/stores.ts'

/** Everywhere a secret could come to lie that must not. */
export const places: { [K in Place]: PlaceKind } = {
  environment,
  proc,
  files,
  snapshots,
  blobs,
  database,
  logs,
  api,
  callbacks,
}
