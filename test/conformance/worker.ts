// A worker to be killed: opens the named driver, starts two sandboxes that would run on, and says `ready`.
import { setTimeout as sleep } from 'node:timers/promises'
import { diskMB, drivers } from './drivers.ts'

const [name = '', dataDir = '', instance = '', imageDir = ''] = process.argv.slice(2)
const driver = await drivers[name]?.open({ dataDir, instance, ready: 2 })
for (const hostname of ['one', 'two']) {
  const sandbox = await driver?.start({ id: hostname, imageDir, vcpus: 1, memoryMB: 128, diskMB, hostname })
  sandbox?.exec({ argv: ['/bin/sh', '-c', 'trap "" TERM; setsid sleep 60 & sleep 60'], env: {}, cwd: '/' })
}
await sleep(300)
console.log('ready')
await sleep(60_000)
