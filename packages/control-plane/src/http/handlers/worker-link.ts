import { EgressRecord } from '@paws/api'
import { z } from 'zod'
import { ApiError } from '../../errors.ts'
import { claim, enrolWorker, heartbeat } from '../../fleet/index.ts'
import { isUuid } from '../../ids.ts'
import {
  type Chunk,
  egressEvent,
  finishSession,
  type Lease,
  sessionNotFound,
  storeOutput,
} from '../../sessions/index.ts'
import type { Handlers, WorkerCaller } from '../handler.ts'

export const workerLinkHandlers = {
  async enrolWorker({ body, caller }, services) {
    return { status: 201, json: await enrolWorker(services, caller.tokenId, body) }
  },

  async heartbeat({ body, caller }, { db, config }) {
    return { status: 200, json: await heartbeat(db, caller.workerId, body, config.leaseMs) }
  },

  async claim({ body, caller, signal }, services) {
    const { leaseMs } = services.config
    const claims = await claim(services, { ...body, workerId: caller.workerId, leaseMs, signal })
    return { status: 200, json: { claims } }
  },

  async reportOutput({ params, body, caller }, { db }) {
    const stored = await storeOutput(db, lease(params, body, caller), body.first, decode(body.chunks))
    return { status: 200, json: { stored } }
  },

  async finishSession({ params, body, caller }, services) {
    const report = { outcome: body.outcome, first: body.first, chunks: decode(body.chunks) }
    const settled = await finishSession(services.db, services, lease(params, body, caller), report)
    return { status: 200, json: settled }
  },

  async openTunnel({ caller }, { tunnels }) {
    return {
      status: 101,
      upgrade: (request, socket, head) => tunnels.accept(caller.workerId, request, socket, head),
    }
  },
} satisfies Partial<Handlers>

function lease({ sessionId }: { sessionId: string }, { fence }: { fence: number }, { workerId }: WorkerCaller): Lease {
  if (!isUuid(sessionId)) throw sessionNotFound(sessionId)
  return { sessionId, workerId, fence }
}

/** @throws VALIDATION_ERROR for a piece of `egress` that holds anything but records */
function decode(chunks: { stream: Chunk['stream']; data: string }[]): Chunk[] {
  return chunks.map(({ stream, data }, index) => {
    const bytes = Buffer.from(data, 'base64')
    return { stream, data: stream === 'egress' ? egressEvent(readRecords(bytes, `chunks.${index}.data`)) : bytes }
  })
}

// What is more than the contract has is left out: a worker is less trusted than those who read it.
function readRecords(bytes: Buffer, path: string): EgressRecord[] {
  try {
    return z.array(EgressRecord).parse(JSON.parse(bytes.toString('utf8')))
  } catch (cause) {
    const message = 'Must be a JSON array of records of outgoing requests'
    throw new ApiError('VALIDATION_ERROR', `${path}: ${message}`, { details: [{ path, message }], cause })
  }
}
