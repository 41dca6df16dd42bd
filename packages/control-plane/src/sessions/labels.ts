/**
 * Text as labels hold it: escaped like inside a JSON string. So NUL and lone surrogates, which PostgreSQL refuses,
 * can be stored, and different texts stay different.
 */
const escaped = (text: string) => JSON.stringify(text).slice(1, -1)

/** The top-level scalars of metadata, by which lists are filtered. */
export function labelsOf(metadata: Record<string, unknown>): string {
  const labels: [string, string][] = []
  for (const [key, value] of Object.entries(metadata)) {
    if (value !== null && typeof value === 'object') continue
    labels.push([escaped(key), escaped(String(value))])
  }
  return JSON.stringify(Object.fromEntries(labels))
}

/** What a row's labels must contain to match these filters. */
export const labelFilter = (filters: [key: string, value: string][]) =>
  JSON.stringify(Object.fromEntries(filters.map(([key, value]) => [escaped(key), escaped(value)])))
