import { type ErrorCode, errorCodes } from './error-codes.ts'
import { z } from './zod.ts'

/** A moment, RFC 3339 in UTC. */
export const Timestamp = z.iso.datetime().openapi({ example: '2026-03-29T10:00:00.000Z' })

/** Any JSON value. */
export const Json = z.json().openapi({ type: ['object', 'array', 'string', 'number', 'boolean', 'null'] })

export const ErrorBody = z
  .object({
    error: z.object({
      code: z.enum(Object.keys(errorCodes) as [ErrorCode, ...ErrorCode[]]),
      /** For people: names the thing and the remedy */
      message: z.string(),
      requestId: z.string().openapi({ example: 'req_0198c5f2a1b7' }),
      details: z
        .array(z.looseObject({ path: z.string().optional(), message: z.string() }))
        .optional()
        .openapi({
          description: 'One entry a field for a validation error; the current and the allowed states for INVALID_STATE',
        }),
    }),
  })
  .openapi('Error')

/** Query of every list: newest first. */
export const pageQuery = {
  limit: z.coerce
    .number()
    .int()
    .min(1)
    .max(200)
    .default(50)
    .openapi({ description: 'Most entries to answer', type: 'integer' }),
  cursor: z.string().max(200).optional().openapi({ description: '`nextCursor` of the page before' }),
}

/** The field every list has beside its entries: absent on the last page. */
export const nextCursor = z
  .string()
  .optional()
  .openapi({ description: 'Give it as `cursor` for the next page; absent on the last' })

/** Query of every stream of events; the header `Last-Event-ID` means the same and wins. */
export const resumeQuery = {
  after: z.coerce
    .number()
    .int()
    .nonnegative()
    .optional()
    .openapi({ description: 'Id of the last event already seen', type: 'integer' }),
}

/** An identifier as it stands in a path: malformed ones are simply not found. */
export const pathId = (description: string) => z.string().min(1).max(200).openapi({ description })
