import type { components } from './generated/api.ts'
import { dataOf, type Http, once } from './http.ts'

export type Fleet = components['schemas']['Fleet']
export type Worker = components['schemas']['Worker']

/** Only for keys of the operator's organization with the scope `fleet:admin`. */
export function fleetOf(http: Http) {
  return {
    get: () => dataOf(http.GET('/v1/fleet')),
    async workers(): Promise<Worker[]> {
      return (await dataOf(http.GET('/v1/fleet/workers'))).workers
    },
    worker: (name: string) => dataOf(http.GET('/v1/fleet/workers/{name}', { params: { path: { name } } })),
    drain: (name: string) => dataOf(http.POST('/v1/fleet/workers/{name}/drain', { params: { path: { name } } })),
    undrain: (name: string) => dataOf(http.POST('/v1/fleet/workers/{name}/undrain', { params: { path: { name } } })),
    async remove(name: string): Promise<void> {
      await http.DELETE('/v1/fleet/workers/{name}', { params: { path: { name } } })
    },
    /** A token that enrols one worker, once; an hour valid unless said otherwise */
    createEnrolmentToken: (options: { expiresInMs?: number } = {}) =>
      dataOf(http.POST('/v1/fleet/enrolment-tokens', { params: { header: once() }, body: options })),
  }
}
