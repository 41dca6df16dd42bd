import fc from 'fast-check'

/** The part of JSON Schema that our document uses. */
export interface JsonSchema {
  $ref?: string
  type?: string | string[]
  enum?: unknown[]
  const?: unknown
  properties?: Record<string, JsonSchema>
  required?: string[]
  additionalProperties?: boolean | JsonSchema
  items?: JsonSchema
  minItems?: number
  maxItems?: number
  minLength?: number
  maxLength?: number
  minimum?: number
  maximum?: number
  pattern?: string
  format?: string
  example?: unknown
  anyOf?: JsonSchema[]
  oneOf?: JsonSchema[]
  allOf?: JsonSchema[]
}

export type Schemas = Record<string, JsonSchema>

/** Values that a schema accepts, mostly: what it says in words or by formats is only approached. */
export function valuesOf(schema: JsonSchema, schemas: Schemas): fc.Arbitrary<unknown> {
  if (schema.$ref) return valuesOf(resolve(schema.$ref, schemas), schemas)
  const alternatives = schema.oneOf ?? schema.anyOf
  if (alternatives) return fc.oneof(...alternatives.map((each) => valuesOf(each, schemas)))
  if (schema.allOf) {
    return fc.tuple(...schema.allOf.map((each) => valuesOf(each, schemas))).map((parts) => Object.assign({}, ...parts))
  }
  if (schema.const !== undefined) return fc.constant(schema.const)
  if (schema.enum) return fc.constantFrom(...schema.enum)
  const type = Array.isArray(schema.type) ? undefined : schema.type
  const made = type ? byType[type]?.(schema, schemas) : fc.jsonValue({ maxDepth: 3 })
  if (!made) throw new Error(`test/support/json-schema.ts does not know the type ${type} yet: add it`)
  return schema.example === undefined ? made : fc.oneof({ weight: 3, arbitrary: fc.constant(schema.example) }, made)
}

const byType: Record<string, (schema: JsonSchema, schemas: Schemas) => fc.Arbitrary<unknown>> = {
  boolean: () => fc.boolean(),
  null: () => fc.constant(null),
  integer: ({ minimum = -10, maximum = 1000 }) => fc.integer({ min: minimum, max: Math.min(maximum, 2 ** 31) }),
  number: ({ minimum = -10, maximum = 1000 }) => fc.double({ min: minimum, max: maximum, noNaN: true }),
  string: texts,
  array: ({ items = {}, minItems = 0, maxItems = 3 }, schemas) =>
    fc.array(valuesOf(items, schemas), { minLength: minItems, maxLength: Math.max(minItems, Math.min(maxItems, 3)) }),
  object: objects,
}

function texts({ format, pattern, minLength = 0, maxLength = 200 }: JsonSchema): fc.Arbitrary<string> {
  if (pattern) return fc.stringMatching(new RegExp(pattern))
  if (format === 'uuid') return fc.uuid()
  if (format === 'date-time') return fc.date({ noInvalidDate: true }).map((date) => date.toISOString())
  if (format === 'uri') return fc.webUrl({ validSchemes: ['http', 'https'] })
  if (format === 'base64') return fc.base64String({ maxLength: 100 })
  return fc.string({ unit: 'grapheme', minLength, maxLength: Math.max(minLength, Math.min(maxLength, 60)) })
}

function objects({ properties = {}, required = [], additionalProperties }: JsonSchema, schemas: Schemas) {
  const known = fc.record(
    Object.fromEntries(Object.entries(properties).map(([name, each]) => [name, valuesOf(each, schemas)])),
    { requiredKeys: required, noNullPrototype: true },
  )
  if (typeof additionalProperties !== 'object') return known
  const more = fc.dictionary(fc.string({ minLength: 1 }), valuesOf(additionalProperties, schemas), { maxKeys: 3 })
  return fc.tuple(more, known).map(([a, b]) => ({ ...a, ...b }))
}

function resolve(reference: string, schemas: Schemas): JsonSchema {
  const schema = schemas[reference.replace('#/components/schemas/', '')]
  if (!schema) throw new Error(`${reference} leads nowhere`)
  return schema
}

/** Text of the kinds that break things: NUL, half surrogates, long ones, numbers in disguise, names with a meaning. */
export const nastyTexts: fc.Arbitrary<string> = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom(
    '',
    '\0',
    'a\0b',
    '\ud800',
    '\udfff x',
    '__proto__',
    'constructor',
    '1e999',
    '-0',
    '../../etc/passwd',
  ),
  fc.constantFrom(
    "'; drop table sessions; --",
    '%00',
    '🐾',
    'x'.repeat(1500),
    'null',
    '{}',
    '00000000-0000-0000-0000-000000000000',
  ),
)

/** Any JSON at all. */
export const garbage: fc.Arbitrary<unknown> = fc.oneof(
  nastyTexts,
  fc.jsonValue({ maxDepth: 4 }),
  fc.constantFrom(2 ** 31, -1, 2 ** 53, 1e308, 0.5, null, true, [], {}, [[]]),
  fc.dictionary(nastyTexts, fc.jsonValue(), { maxKeys: 3, noNullPrototype: true }),
)

/** A value changed in one place, anywhere in it: something else put there, taken away or added. */
export function mutated(values: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  return fc
    .tuple(values, fc.nat(), fc.constantFrom('replace', 'remove', 'add'), nastyTexts, garbage)
    .map(([value, place, how, name, other]) => {
      const copy = structuredClone(value)
      const places = placesOf(copy)
      const chosen = places[place % places.length]
      if (!chosen) return other
      const { holder, key } = chosen
      if (how === 'remove') delete holder[key]
      else if (how === 'replace') define(holder, key, other)
      else define(holder, name, other)
      return copy
    })
}

type Holder = Record<string, unknown>

function placesOf(value: unknown): { holder: Holder; key: string }[] {
  if (typeof value !== 'object' || value === null) return []
  const holder = value as Holder
  return Object.keys(holder).flatMap((key) => [{ holder, key }, ...placesOf(holder[key])])
}

// A plain assignment to __proto__ would change what the object is instead of what it holds.
function define(holder: Holder, key: string, value: unknown): void {
  Object.defineProperty(holder, key, { value, enumerable: true, configurable: true, writable: true })
}
