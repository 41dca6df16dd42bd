import { execFileSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

/**
 * Writes types.gen.ts from a migrated database, or with `verify` says whether it is what the database gives.
 * By hand: `node packages/control-plane/src/database/generate-types.ts <url of a migrated database>`
 *
 * @throws when `verify` finds a difference
 */
export function generateTypes(url: string, options: { verify: boolean }): void {
  const bin = join(dirname(createRequire(import.meta.url).resolve('kysely-codegen/package.json')), 'dist/cli/bin.js')
  execFileSync(
    process.execPath,
    [
      bin,
      '--url',
      url,
      '--dialect=postgres',
      '--camel-case',
      '--default-schema=public',
      '--exclude-pattern=migrations',
      '--type-mapping={"int8":"number"}',
      `--out-file=${join(import.meta.dirname, 'types.gen.ts')}`,
      ...(options.verify ? ['--verify'] : []),
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  )
}

if (import.meta.main) {
  const url = process.argv[2]
  if (!url) throw new Error('Give the URL of a migrated database')
  generateTypes(url, { verify: false })
}
