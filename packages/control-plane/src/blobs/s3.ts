import type { Readable } from 'node:stream'
import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  S3Client,
  S3ServiceException,
} from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import { type Blobs, checkKey, measure } from './blobs.ts'

/** Where an S3-compatible storage is; its credentials are found by the SDK's own rules. */
export interface S3Location {
  bucket: string
  /** Goes before each key; may be empty */
  prefix: string
  endpoint: string | undefined
  region: string
  /** The bucket stands in the path and not in the host's name */
  forcePathStyle: boolean
}

/** The size of the parts of an upload; 10000 of them at most, so blobs up to 160 GB. */
const partBytes = 16 * 1024 * 1024

/** Reads `s3://bucket/prefix?endpoint=…&region=…&forcePathStyle=true`. @throws naming what is wrong with it */
export function readS3Location(text: string): S3Location {
  const url = new URL(text)
  const known = ['endpoint', 'region', 'forcePathStyle']
  const unknown = [...url.searchParams.keys()].find((name) => !known.includes(name))
  if (unknown) throw new Error(`PAWS_BLOBS has the setting "${unknown}"; known are ${known.join(', ')}`)
  if (!url.hostname) throw new Error('PAWS_BLOBS names no bucket: it is like s3://bucket/prefix?endpoint=https://…')
  if (url.username)
    throw new Error('PAWS_BLOBS must hold no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY')
  return {
    bucket: url.hostname,
    prefix: url.pathname.replace(/^\/+|\/+$/g, ''),
    endpoint: url.searchParams.get('endpoint') ?? undefined,
    region: url.searchParams.get('region') ?? 'us-east-1',
    forcePathStyle: url.searchParams.get('forcePathStyle') === 'true',
  }
}

/** Blobs as objects. An upload is completed only when all of it was right, so nothing half stored is ever seen. */
export function openS3({ bucket, prefix, ...location }: S3Location): Blobs {
  const client = new S3Client({
    region: location.region,
    forcePathStyle: location.forcePathStyle,
    ...(location.endpoint && { endpoint: location.endpoint }),
    // Not every compatible storage knows the newer checksums; ours are the digests.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  })
  const objectOf = (key: string) => {
    checkKey(key)
    return { Bucket: bucket, Key: prefix ? `${prefix}/${key}` : key }
  }
  return {
    async put(key, content, { sha256 } = {}) {
      const { through, stored } = measure(key, sha256)
      // Whatever fails the source fails the upload, which then gives up the parts that it has sent.
      content.on('error', (error) => through.destroy(error))
      const upload = new Upload({
        client,
        params: { ...objectOf(key), Body: content.pipe(through) },
        partSize: partBytes,
        queueSize: 2,
      })
      try {
        await upload.done()
      } catch (error) {
        content.destroy()
        // The SDK hides a failing source behind its own error.
        throw through.errored ?? error
      }
      return stored()
    },
    async get(key) {
      const answer = await client.send(new GetObjectCommand(objectOf(key))).catch(absent)
      if (!answer?.Body || answer.ContentLength === undefined) return undefined
      return { size: answer.ContentLength, content: answer.Body as Readable }
    },
    async has(key) {
      return (await client.send(new HeadObjectCommand(objectOf(key))).catch(absent)) !== undefined
    },
    async delete(key) {
      await client.send(new DeleteObjectCommand(objectOf(key)))
    },
    close: () => client.destroy(),
  }
}

function absent(error: unknown): undefined {
  // A missing bucket is a 404 as well, and is no missing blob.
  if (error instanceof S3ServiceException && ['NoSuchKey', 'NotFound'].includes(error.name)) return undefined
  throw error
}
