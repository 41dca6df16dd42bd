import type { SnapshotConfig } from '@paws/sdk'
import { type Command, Option } from 'commander'
import { type Context, readText, withJson } from '../context.ts'
import { usageError } from '../errors.ts'
import { ago, type Columns } from '../output.ts'
import { sizeMB, wholeNumber } from '../terms.ts'

interface ConfigOptions {
  template?: string
  setup?: string
  /** False: none */
  require?: string[] | false
  vcpus?: number
  memory?: number
  disk?: number
  isolation?: SnapshotConfig['isolation']
  json?: boolean
}

const columns: Columns<SnapshotConfig> = {
  CONFIG: (config) => config.id,
  TEMPLATE: (config) => config.template,
  REQUIRES: (config) => config.requiredDomains.join(' ') || undefined,
  RESOURCES: resourcesOf,
  ISOLATION: (config) => config.isolation,
  CHANGED: (config) => ago(config.updatedAt),
}

/** The commands about how snapshots of one's own are made. */
export function addConfigCommands(snapshots: Command, context: Context): void {
  const { output } = context
  const sub = (usage: string, description: string) => withJson(snapshots.command(usage).description(description))

  sub('configs [id]', 'Lists your configs, or shows one with its setup.').action(
    async (id: string | undefined, { json }: { json?: boolean }) => {
      const { configs } = context.client().snapshots
      if (id !== undefined) {
        const config = await configs.get(id)
        return json ? output.json(config) : show(config, context)
      }
      const rows = await configs.list()
      if (json) output.json({ configs: rows })
      else output.table(rows, columns, 'There are no configs: "paws snapshots create --help" says how to make one.')
    },
  )

  const create = sub('create <id>', 'Says how a snapshot of your own is made. Builds nothing yet.')
  withFields(create, { template: 'minimal', vcpus: '2', memory: '4096', disk: '10240', isolation: 'any' }).action(
    async (id: string, options: ConfigOptions) => {
      if (options.setup === undefined) throw usageError('There is no setup. Give its file by --setup, "-" for stdin.')
      const setup = await readText(options.setup)
      const made = await context.client().snapshots.configs.create({ id, setup, ...fieldsOf(options) })
      tell(made, options, context)
    },
  )

  const edit = sub('edit <id>', 'Changes a config. What was built before serves until you build it again.')
  withFields(edit).action(async (id: string, options: ConfigOptions) => {
    const { configs } = context.client().snapshots
    const { template, setup, requiredDomains, resources, isolation } = await configs.get(id)
    const given = fieldsOf(options)
    const changed = await configs.update(id, {
      ...{ template, requiredDomains, isolation },
      ...given,
      setup: options.setup === undefined ? setup : await readText(options.setup),
      resources: { ...resources, ...given.resources },
    })
    tell(changed, options, context)
  })

  snapshots
    .command('delete <id>')
    .description('Deletes a config and its snapshot. Sessions that run go on, those that wait for it fail.')
    .action(async (id: string) => {
      await context.client().snapshots.configs.delete(id)
      output.note(`Config "${id}" and its snapshot are deleted.`)
    })
}

function withFields(command: Command, defaults: Record<string, string> = {}): Command {
  const unless = (name: string) => (defaults[name] ? ` (default: ${defaults[name]})` : '')
  return command
    .option('-t, --template <id>', `what the setup runs in${unless('template')}`)
    .option('-f, --setup <path>', 'the setup: a script in a file, "-" for stdin')
    .option('-r, --require <host...>', 'what it may reach: hosts, *.example.com, preset:npm, … (replaces all)')
    .option('--no-require', 'it may reach nothing')
    .option('--vcpus <n>', `processors of the setup${unless('vcpus')}`, wholeNumber)
    .option('--memory <size>', `megabytes, or like 4g${unless('memory')}`, sizeMB)
    .option('--disk <size>', `megabytes, or like 10g${unless('disk')}`, sizeMB)
    .addOption(
      new Option('--isolation <kind>', `the weakest that will do for its sessions${unless('isolation')}`).choices([
        'any',
        'vm',
      ]),
    )
}

/** What was said on the command line, the setup aside; what was not is left out. */
function fieldsOf(options: ConfigOptions) {
  const { template, require, vcpus, memory, disk, isolation } = options
  return {
    ...(template !== undefined && { template }),
    ...(isolation !== undefined && { isolation }),
    // "--no-require" is how a list is emptied.
    ...(require !== undefined && { requiredDomains: require || [] }),
    resources: {
      ...(vcpus !== undefined && { vcpus }),
      ...(memory !== undefined && { memoryMB: memory }),
      ...(disk !== undefined && { diskMB: disk }),
    },
  }
}

function tell(config: SnapshotConfig, { json }: ConfigOptions, { output }: Context): void {
  if (json) output.json(config)
  else {
    output.line(config.id)
    output.note(`Build it with: paws snapshots build ${config.id}`)
  }
}

function show(config: SnapshotConfig, { output }: Context): void {
  const { id, template, isolation, requiredDomains, createdAt, updatedAt, setup } = config
  const requires = requiredDomains.join(', ') || 'nothing'
  output.card({ id, template, requires, resources: resourcesOf(config), isolation, createdAt, updatedAt })
  output.line('')
  output.line(setup.trimEnd())
}

function resourcesOf({ resources: { vcpus, memoryMB, diskMB } }: SnapshotConfig): string {
  return `${vcpus} vcpus, ${memoryMB} MB, disk ${diskMB} MB`
}
