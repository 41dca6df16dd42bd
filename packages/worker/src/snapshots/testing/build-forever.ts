import { pino } from 'pino'
import { buildSnapshot, openSnapshotStore } from '../index.ts'
import { minimalBuild } from './minimal-image.ts'

// A worker's build in a process of its own, to be killed: build-forever.ts DATA_DIR TEMPLATES_DIR. Sends its log.
const [dataDir = '', templatesDir = ''] = process.argv.slice(2)
const store = await openSnapshotStore({
  dataDir,
  log: pino({ level: 'silent' }),
  fetchFile: async () => {
    throw new Error('There is nothing to fetch')
  },
})
await buildSnapshot({ ...minimalBuild, store, templatesDir, onLine: (line) => void process.send?.(line) })
