/** Runs every check that needs no running service, side by side, and says which failed. `npm run check -- --only lint,walls` runs a few. */
import { spawn } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const bin = (name: string) => join(root, 'node_modules', '.bin', name)

/** Longest first, so that no one waits for it at the end. */
const steps: Record<string, string[][]> = {
  types: [[bin('tsc'), '--noEmit', '-p', '.']],
  walls: [[bin('depcruise'), '--config', '.dependency-cruiser.cjs', 'packages', 'test', 'bench', 'scripts']],
  'dead code': [[bin('knip')]],
  'contract drift': [
    [process.execPath, 'scripts/generate.ts', '--check'],
    [bin('redocly'), 'lint', '--format', 'stylish', 'openapi.json'],
  ],
  lint: [[bin('biome'), 'check', '--error-on-warnings']],
}

const wanted = chosen(process.argv.slice(2))
const started = performance.now()
const failed: string[] = []
const waiting = Object.entries(steps).filter(([name]) => wanted.includes(name))
await Promise.all(Array.from({ length: Math.max(2, availableParallelism()) }, work))

const seconds = ((performance.now() - started) / 1000).toFixed(1)
if (failed.length > 0) {
  console.error(`\nFailed after ${seconds} s: ${failed.join(', ')}`)
  process.exit(1)
}
console.log(`\nAll checks passed in ${seconds} s: ${wanted.join(', ')}`)

async function work() {
  for (let step = waiting.shift(); step; step = waiting.shift()) await runStep(...step)
}

/** Prints a step's output only once it has ended, so that two at once stay readable, and only if it failed. */
async function runStep(name: string, commands: string[][]) {
  const begun = performance.now()
  for (const command of commands) {
    const { code, output } = await run(command)
    if (code === 0) continue
    failed.push(name)
    console.error(`✗ ${name}\n${output.trimEnd()}\n`)
    return
  }
  console.log(`✓ ${name} (${((performance.now() - begun) / 1000).toFixed(1)} s)`)
}

function run([program = '', ...args]: string[]): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
    const pieces: Buffer[] = []
    child.stdout.on('data', (piece: Buffer) => pieces.push(piece))
    child.stderr.on('data', (piece: Buffer) => pieces.push(piece))
    child.on('error', (cause) => reject(new Error(`${program} could not be started. Run "npm ci" first.`, { cause })))
    child.on('close', (code) => resolve({ code, output: Buffer.concat(pieces).toString() }))
  })
}

function chosen(args: string[]): string[] {
  const all = Object.keys(steps)
  if (args[0] !== '--only') return all
  const names = (args[1] ?? '').split(',')
  const unknown = names.filter((name) => !all.includes(name))
  if (unknown.length > 0) throw new Error(`No check is called "${unknown.join('", "')}". There are: ${all.join(', ')}.`)
  return names
}
