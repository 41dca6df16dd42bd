import type { components } from './generated/api.ts'
import { dataOf, type Http } from './http.ts'

export type Secret = components['schemas']['Secret']

/** What sessions name in `network.credentials`. No value is ever read back. */
export function secretsOf(http: Http) {
  const params = (secretName: string) => ({ path: { secretName } })
  return {
    /**
     * Stores it, in the place of one that was there
     *
     * @param options.hosts the only ones that sessions may name it for, `*.example.com` for sub-domains; null: any.
     * Without them those of the one that was there, if it had any
     */
    put: (secretName: string, value: string, options: { hosts?: string[] | null } = {}) =>
      dataOf(http.PUT('/v1/secrets/{secretName}', { params: params(secretName), body: { value, ...options } })),
    async list(): Promise<Secret[]> {
      return (await dataOf(http.GET('/v1/secrets'))).secrets
    },
    /** Sessions that were created with it keep their copy until they end */
    async delete(secretName: string): Promise<void> {
      await http.DELETE('/v1/secrets/{secretName}', { params: params(secretName) })
    },
  }
}
