import { openApiDocument } from '@paws/api'
import { html, raw } from 'hono/html'
import { version } from '../version.ts'

type Document = ReturnType<typeof openApiDocument>
interface Operation {
  operationId?: string
  tags?: string[]
  summary?: string
  description?: string
  parameters?: { name: string; in: string; required?: boolean; schema?: unknown; description?: string }[]
  requestBody?: { content: Record<string, { schema?: unknown }> }
  responses: Record<string, { description: string; content?: Record<string, { schema?: unknown }> }>
}

const methods = ['get', 'post', 'put', 'patch', 'delete'] as const

/** The contract as one page without a script, a font or anything else from elsewhere. */
export async function referencePage(): Promise<string> {
  const document = openApiDocument(version)
  const operations = Object.entries(document.paths ?? {}).flatMap(([path, item]) =>
    methods.flatMap((method) => {
      const operation = item[method] as Operation | undefined
      return operation ? [{ path, method, operation }] : []
    }),
  )
  const tags = (document.tags ?? []).map(({ name }) => ({
    name,
    entries: operations.filter(({ operation }) => operation.tags?.includes(name)),
  }))
  const page = await html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${document.info.title}</title><style>${raw(style)}</style></head><body>
<nav><b>${document.info.title}</b> ${document.info.version}<p><a href="/openapi.json">openapi.json</a></p>
${tags.map(
  (tag) =>
    html`<h3>${tag.name}</h3>${tag.entries.map(
      ({ operation }) => html`<a href="#${operation.operationId}">${operation.summary}</a>`,
    )}`,
)}<h3>Schemas</h3>${schemaNames(document).map((name) => html`<a href="#schema-${name}">${name}</a>`)}</nav>
<main><p>${document.info.description}</p>
${tags.map((tag) => html`<h2>${tag.name}</h2>${tag.entries.map((entry) => section(entry))}`)}
<h2>Schemas</h2>${schemaNames(document).map(
    (name) =>
      html`<article id="schema-${name}"><h3>${name}</h3>${schema(document.components?.schemas?.[name])}</article>`,
  )}
</main></body></html>`
  return String(page)
}

function section({ path, method, operation }: { path: string; method: string; operation: Operation }) {
  const { operationId, summary, description, parameters = [], requestBody, responses } = operation
  return html`<article id="${operationId}"><h3>${summary}</h3>
<p><code><b>${method.toUpperCase()}</b> ${path}</code></p><p class="text">${description}</p>
${
  parameters.length > 0 &&
  html`<table>${parameters.map(
    (p) => html`<tr><td><code>${p.name}</code></td><td>${p.in}${p.required && ', required'}</td>
<td>${p.description}</td></tr>`,
  )}</table>`
}
${requestBody && html`<h4>Body</h4>${content(requestBody.content)}`}
${Object.entries(responses).map(
  ([status, response]) =>
    html`<details><summary><b>${status}</b> ${response.description}</summary>${content(response.content ?? {})}</details>`,
)}</article>`
}

function content(types: Record<string, { schema?: unknown }>) {
  return Object.entries(types).map(([type, { schema: of }]) => html`<p><small>${type}</small></p>${schema(of)}`)
}

function schema(of: unknown) {
  const escaped = JSON.stringify(of ?? {}, null, 2)
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
  const linked = escaped.replaceAll(/"#\/components\/schemas\/(\w+)"/g, '<a href="#schema-$1">$1</a>')
  return html`<pre>${raw(linked)}</pre>`
}

const schemaNames = (document: Document) => Object.keys(document.components?.schemas ?? {})

const style = `
body{margin:0;display:flex;font:15px/1.5 system-ui,sans-serif;color-scheme:light dark}
nav{width:17rem;height:100vh;overflow:auto;position:sticky;top:0;padding:1rem;box-sizing:border-box;flex:none}
nav a{display:block;text-decoration:none;padding:.1rem 0;color:inherit}nav h3{margin:1rem 0 .2rem}
main{max-width:52rem;padding:1rem 2rem;min-width:0}article{border-top:1px solid #8886;padding:.5rem 0}
pre{background:#8882;padding:.7rem;overflow:auto;border-radius:4px;font-size:13px}.text{white-space:pre-line}
td{padding:.1rem .8rem .1rem 0;vertical-align:top}summary{cursor:pointer}
@media(max-width:50rem){body{display:block}nav{width:auto;height:auto;position:static}}`
