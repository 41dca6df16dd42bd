import { execFile } from 'node:child_process'
import { isIP } from 'node:net'
import { promisify } from 'node:util'
import { type Preset, presets } from '@paws/api'
import { readAptSettings } from '../machine/apt.ts'
import { PresetUnavailable } from '../sandbox/outlet.ts'

const run = promisify(execFile)
/** npm on a busy machine takes seconds. */
const patienceMs = 30_000

/** What a preset stands for on this machine. */
export interface PresetHosts {
  hosts: string[]
  /** Variables that lead programs inside there */
  env: Record<string, string>
}

/** Where this machine gets packages from, by the program that gets them; addresses as that program has them. */
type Sources = { urls: string[]; hosts?: string[]; env: (urls: string[]) => Record<string, string> }

const sources: { [K in Preset]: { read(): Promise<Sources>; remedy: string } } = {
  npm: { read: readNpm, remedy: 'install npm for the user that the worker runs as, or set its "registry"' },
  debian: { read: readApt, remedy: 'add a Debian source to /etc/apt/sources.list.d' },
  pypi: { read: readPip, remedy: 'install pip for the user that the worker runs as, or set its "index-url"' },
}

/** Reads what this machine is set to, once for each preset, when it is first asked for. */
export function openPresets(): (preset: Preset) => Promise<PresetHosts> {
  const known = new Map<Preset, Promise<PresetHosts>>()
  return (preset) => {
    const found = known.get(preset) ?? resolvePreset(preset)
    known.set(preset, found)
    // Once the operator has mended it, no restart is needed.
    found.catch(() => known.delete(preset))
    return found
  }
}

async function resolvePreset(preset: Preset): Promise<PresetHosts> {
  const { read, remedy } = sources[preset]
  const unavailable = (why: string, cause?: unknown) =>
    new PresetUnavailable(`preset:${preset} (${presets[preset].toLowerCase()}) stands for nothing here: ${why}`, {
      cause,
    })
  const {
    urls,
    hosts = [],
    env,
  } = await read().catch((error: Error) => {
    throw unavailable(`the worker's machine does not say. There, ${remedy}`, error)
  })
  const parsed = urls.map((text) => {
    const url = URL.canParse(text) ? new URL(text) : undefined
    if (!url || !/^https?:$/.test(url.protocol))
      throw unavailable(`its address is none of http or https. There, ${remedy}`)
    if (isIP(url.hostname.replace(/^\[|\]$/g, '')))
      throw unavailable('its address has no name, and sandboxes go by names')
    // What a URL parser leaves out is the usual port of its scheme; sandboxes reach none but those two.
    if (url.port) throw unavailable(`its address has the port ${url.port}, and only 80 and 443 lead out of a sandbox`)
    return url
  })
  if (parsed.length === 0) throw unavailable(`nothing is set. There, ${remedy}`)
  const names = [...parsed.map(({ hostname }) => hostname), ...hosts]
  return { hosts: [...new Set(names)].sort(), env: env(parsed.map(withoutPassword)) }
}

function withoutPassword(url: URL): string {
  const shown = new URL(url)
  shown.username = ''
  shown.password = ''
  return shown.href
}

async function readNpm(): Promise<Sources> {
  const registry = await say('npm', ['config', 'get', 'registry'])
  return { urls: [registry], env: ([url = '']) => ({ npm_config_registry: url }) }
}

async function readApt(): Promise<Sources> {
  const { main, security } = (await readAptSettings()).mirrors
  return { urls: security ? [main, security] : [main], env: () => ({}) }
}

/** Asks for what is set, and says where packages without a set index come from: an index and the host of its files. */
const ASK_PIP = `
import json
from pip._internal.cli.main_parser import create_main_parser
from pip._internal.commands import create_command
from pip._internal.models.index import PyPI
options, _ = create_command("download").parse_args(["none"])
usual = options.index_url == PyPI.simple_url
print(json.dumps({"index": options.index_url, "files": [PyPI.file_storage_domain] if usual else []}))`

async function readPip(): Promise<Sources> {
  const { index, files } = JSON.parse(await say('python3', ['-c', ASK_PIP])) as { index: string; files: string[] }
  return { urls: [index], hosts: files, env: ([url = '']) => ({ PIP_INDEX_URL: url.replace(/\/$/, '') }) }
}

async function say(program: string, args: string[]): Promise<string> {
  // From the root, so that no project's own settings are read.
  const { stdout } = await run(program, args, { cwd: '/', timeout: patienceMs })
  return stdout.trim()
}
