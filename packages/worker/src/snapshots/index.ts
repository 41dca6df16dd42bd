export { type BuildOptions, type Built, buildSnapshot } from './making/build.ts'
export type { Progress } from './making/build-progress.ts'
export { type FetchFile, type HeldSnapshot, openSnapshotStore, type SnapshotStore } from './store.ts'
export { type PutFile, uploadSnapshot } from './upload.ts'
