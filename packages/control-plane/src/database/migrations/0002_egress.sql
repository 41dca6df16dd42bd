-- What may leave a session's sandbox: JSON text, `***` in the place of values. They are sealed beside it until it ends.
alter table sessions add column network text not null default '{"allowOut":[],"credentials":{},"auditLog":false}';
alter table sessions add column sealed_secrets bytea;
-- Of the records of its outgoing requests, all that came, whether kept or beyond the limit.
alter table sessions add column egress_bytes bigint not null default 0;
-- They are listed apart from the output that they lie among.
create index events_egress on events (subject, seq desc) where type = 'egress';
-- For what is sealed with an old data key when that is replaced.
create index sessions_sealed on sessions (org_id) where sealed_secrets is not null;
create index idempotency_keys_by_org on idempotency_keys (org_id);

-- Stored secrets, by which sessions are given values without anybody sending them again.
create table secrets (
  org_id text not null references organizations on delete cascade,
  name text not null,
  sealed bytea not null,
  -- Those that it may be named for: names, and *.name for sub-domains. Null: any.
  hosts text[],
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (org_id, name)
);

-- A key that could do all there was can do what is new, too.
update api_keys set scopes = scopes || array['secrets:read', 'secrets:write']
where scopes @> array['sessions:read', 'sessions:write', 'snapshots:read', 'snapshots:write', 'organizations:read',
  'organizations:write'] and not scopes && array['secrets:read', 'secrets:write'];

-- Keys of the server itself, wrapped by the master key: what digests are made with, so that the master key can change.
create table server_keys (
  name text primary key,
  wrapped bytea not null,
  created_at timestamptz not null default now()
);

-- How an organization's own snapshots are made.
create table snapshot_configs (
  org_id text not null references organizations on delete cascade,
  id text not null,
  template text not null,
  setup text not null,
  required_domains text[] not null,
  vcpus int not null,
  memory_mb int not null,
  disk_mb int not null,
  isolation_min text not null default 'any' check (isolation_min in ('any', 'vm')),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (org_id, id)
);

-- A build of a config holds the config as it was when it was asked for: JSON text. Null for a template.
alter table builds add column config text;
alter table builds alter column template drop not null;
-- Id of the built-in snapshot that its setup is run in; null for the first of all. It waits until that is ready.
alter table builds add column base_id text;
-- Which version of it the claim named: the manifest of what is built must name the same.
alter table builds add column base_digest text;
