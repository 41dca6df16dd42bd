/**
 * Writes what follows from the contract: openapi.json and the SDK's types.
 * With --check it writes nothing, and fails when a copy is stale.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import openapiTypeScript, { astToString, type OpenAPI3 } from 'openapi-typescript'
import api from '../packages/api/package.json' with { type: 'json' }
import { openApiDocument } from '../packages/api/src/index.ts'

const root = join(import.meta.dirname, '..')
const document = openApiDocument(api.version)
const types = astToString(
  await openapiTypeScript(document as OpenAPI3, {
    alphabetize: true,
    defaultNonNullable: false,
    emptyObjectsUnknown: true,
  }),
)

const files: Record<string, string> = {
  'openapi.json': `${JSON.stringify(document, null, 2)}\n`,
  'packages/sdk/src/generated/api.ts': `// Made from the contract by "npm run generate". Change packages/api instead.\n\n${types}`,
}

if (process.argv.includes('--check')) {
  const stale = await Promise.all(
    Object.entries(files).map(async ([file, wanted]) => ((await current(file)) === wanted ? [] : [file])),
  )
  if (stale.flat().length > 0) {
    console.error(
      `Not what the contract says: ${stale.flat().join(', ')}. Run "npm run generate" and commit the result.`,
    )
    process.exit(1)
  }
} else {
  for (const [file, content] of Object.entries(files)) await writeFile(join(root, file), content)
}

async function current(file: string): Promise<string | undefined> {
  try {
    return await readFile(join(root, file), 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
