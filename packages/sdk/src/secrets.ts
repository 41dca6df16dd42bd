import type { components } from './generated/api.ts'
import { dataOf, type Http } from './http.ts'

export type Secret = components['schemas']['Secret']

/** What sessions name in `network.credentials`. No value is ever read back. */
export function secretsOf(http: Http) {
  const params = (secretName: string) => ({ path: { secretName } })
  return {
    /** Stores it, in the place of one that was there */
    put: (secretName: string, value: string) =>
      dataOf(http.PUT('/v1/secrets/{secretName}', { params: params(secretName), body: { value } })),
    async list(): Promise<Secret[]> {
      return (await dataOf(http.GET('/v1/secrets'))).secrets
    },
    /** Sessions that were created with it keep their copy until they end */
    async delete(secretName: string): Promise<void> {
      await http.DELETE('/v1/secrets/{secretName}', { params: params(secretName) })
    },
  }
}
