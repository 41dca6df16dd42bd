import type { PawsClient } from '@paws/sdk'
import { bar, type Steps } from './steps.ts'

export const firstSnapshot = 'minimal'
const greeting = 'echo "hello from inside the sandbox, I am $(id -un) on $(uname -sr)"'

/** Builds the smallest snapshot unless there is a good one, which an earlier start has left. */
export async function ensureSnapshot(client: PawsClient, steps: Steps, signal: AbortSignal): Promise<void> {
  const { status } = await client.snapshots.get(firstSnapshot)
  if (status === 'ready') return
  await steps.step(`Snapshot "${firstSnapshot}", built once`, async (show) => {
    const { jobId } = await client.snapshots.build(firstSnapshot)
    const build = await client.snapshots.waitForBuild(firstSnapshot, jobId, {
      signal,
      onEvent: ({ event, data }) => {
        if (event === 'progress') show(`${bar(data.progress)} ${data.step ?? data.status}`)
      },
    })
    if (build.status === 'ready') return
    const end = build.log.trim().split('\n').slice(-15).join('\n')
    throw new Error(`The snapshot could not be built: ${build.error ?? build.status}\n${end}`)
  })
}

/** Runs a session as any client would, and shows what it says. */
export async function sayHello(client: PawsClient, steps: Steps, signal: AbortSignal): Promise<void> {
  const session = await steps.step('First session through the API', () =>
    client.sessions.run({ snapshot: firstSnapshot, workload: { type: 'script', script: greeting } }, { signal }),
  )
  if (session.status !== 'completed') {
    const why = session.error?.message ?? session.stderr ?? ''
    throw new Error(`The first session is ${session.status} instead of completed. ${why}`.trim())
  }
  for (const line of (session.stdout ?? '').trim().split('\n')) steps.say(`    │ ${line}`)
}
