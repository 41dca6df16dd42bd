import { AllowedHosts } from './network.ts'
import { z } from './zod.ts'

const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'Must be a SHA-256 as 64 lower-case hex digits')

/** The SHA-256 of a manifest's exact bytes; it names the snapshot. */
export const SnapshotDigest = z
  .string()
  .regex(/^sha256:[0-9a-f]{64}$/, 'Must be "sha256:" and 64 lower-case hex digits')

/** Most bytes of a manifest. */
export const manifestLimitBytes = 1024 * 1024

/** A snapshot in one small file. Says nothing of when or where it was built, so that equal content has equal bytes. */
export const SnapshotManifest = z.strictObject({
  format: z.literal(1),
  /** Id of the snapshot; for a built-in one that of its template */
  id: z.string(),
  /** What it was made from: a template that ships with paws, or an organization's own config */
  template: z.strictObject({ id: z.string(), sha256 }).optional(),
  config: z.strictObject({ organization: z.string(), sha256 }).optional(),
  /** What its setup was run in; absent where it was made from packages */
  base: SnapshotDigest.optional(),
  architecture: z.string(),
  /** Variables that its programs expect */
  env: z.record(z.string(), z.string()),
  /** Version of each Debian package inside */
  packages: z.record(z.string(), z.string()),
  files: z.strictObject({ 'rootfs.squashfs': z.strictObject({ sha256, sizeBytes: z.int().min(1) }) }),
})
export type SnapshotManifest = z.output<typeof SnapshotManifest>

/** `manifest.json` of a folder of `snapshots/`. */
export const TemplateManifest = z.strictObject({
  /** One line for people */
  description: z.string(),
  /** Made from packages, or by its setup in another template's snapshot */
  from: z.union([
    z.strictObject({
      /** Code name of the Debian release */
      suite: z.string().regex(/^[a-z]+$/),
      packages: z.array(z.string().regex(/^[a-z0-9][a-z0-9+.-]+$/, 'Must be the name of a Debian package')).min(1),
    }),
    z.strictObject({ template: z.string() }),
  ]),
  /** Hosts that its setup may reach */
  requiredDomains: AllowedHosts,
  /** Variables that its programs expect, beside those of the template it comes from */
  env: z.record(z.string(), z.string()),
})
export type TemplateManifest = z.output<typeof TemplateManifest>
