import { extendZodWithOpenApi } from '@asteasolutions/zod-to-openapi'
import { z } from 'zod'

// Schemas carry their names and descriptions for the OpenAPI document; this must run before the first of them is made.
extendZodWithOpenApi(z)

export { z }
