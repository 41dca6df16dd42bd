-- Organizations and their keys. The first organization is the operator's.
create table organizations (
  id text primary key,
  name text not null,
  operator boolean not null default false,
  created_at timestamptz not null default now()
);
create unique index organizations_one_operator on organizations (operator) where operator;

create table api_keys (
  id text primary key,
  org_id text not null references organizations on delete cascade,
  name text not null,
  prefix text not null,
  last_four text not null,
  -- HMAC-SHA-256 of the whole key under the server's pepper
  hash bytea not null unique,
  scopes text[] not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  last_used_at timestamptz,
  revoked_at timestamptz
);
create index api_keys_by_org on api_keys (org_id, id desc);

-- Vault: one data key an organization, wrapped by the master key. Everything sealed names its version.
create table data_keys (
  org_id text not null references organizations on delete cascade,
  version int not null,
  wrapped bytea not null,
  created_at timestamptz not null default now(),
  primary key (org_id, version)
);

create table webhook_secrets (
  org_id text primary key references organizations on delete cascade,
  sealed bytea not null,
  previous_sealed bytea,
  previous_valid_until timestamptz
);

-- First answers of requests with an Idempotency-Key. Bodies only as keyed digests, answers sealed.
create table idempotency_keys (
  api_key_id text not null references api_keys on delete cascade,
  org_id text not null references organizations on delete cascade,
  operation text not null,
  key text not null,
  request_digest bytea not null,
  -- null while the first request is in flight
  status int,
  sealed_answer bytea,
  created_at timestamptz not null default now(),
  primary key (api_key_id, operation, key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);

-- Whatever is streamed: the events of sessions and builds, numbered from 1 without gaps by the subject's row.
create table events (
  subject text not null,
  seq int not null,
  type text not null,
  -- raw bytes for output, JSON text for the rest
  data bytea not null,
  at timestamptz not null default now(),
  primary key (subject, seq)
);
alter table events alter column data set storage external;

create table workers (
  id text primary key,
  name text not null unique,
  credential_hash bytea not null unique,
  state jsonb not null,
  draining boolean not null default false,
  created_at timestamptz not null default now(),
  last_seen_at timestamptz not null default now()
);

create table enrolment_tokens (
  id text primary key,
  hash bytea not null unique,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  used_at timestamptz
);

-- Null org_id: a built-in template, shared by all.
create table snapshots (
  id text not null,
  org_id text references organizations on delete cascade,
  version int not null,
  digest text not null,
  size_bytes bigint not null,
  built_at timestamptz not null default now()
);
create unique index snapshots_by_id on snapshots (id, coalesce(org_id, ''));

create table builds (
  job_id text primary key,
  org_id text references organizations on delete cascade,
  snapshot_id text not null,
  template text not null,
  status text not null default 'queued' check (status in ('queued', 'building', 'ready', 'failed')),
  progress real not null default 0,
  step text,
  error text,
  digest text,
  worker_id text references workers on delete set null,
  worker_name text,
  fence int not null default 0,
  lease_expires_at timestamptz,
  last_seq int not null default 0,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  completed_at timestamptz
);
-- One unfinished build a snapshot.
create unique index builds_unfinished on builds (snapshot_id, coalesce(org_id, '')) where status in ('queued', 'building');
create index builds_by_snapshot on builds (snapshot_id, job_id desc);

-- The row is the queue: workers claim pending ones with FOR UPDATE SKIP LOCKED.
create table sessions (
  id uuid primary key,
  org_id text not null references organizations on delete cascade,
  status text not null default 'pending'
    check (status in ('pending', 'running', 'completed', 'failed', 'timeout', 'cancelled')),
  snapshot_id text not null,
  isolation_min text not null default 'any' check (isolation_min in ('any', 'vm')),
  -- bytes, since a script may hold any
  script bytea not null,
  -- JSON text, as are metadata, error and output: jsonb refuses \u0000 and lone surrogates
  env text not null,
  vcpus int not null,
  memory_mb int not null,
  disk_mb int not null,
  timeout_ms int not null,
  callback_url text,
  metadata text,
  -- the top-level scalars of metadata as escaped text, for filters
  labels jsonb not null default '{}',
  cancel_requested_at timestamptz,
  worker_id text references workers on delete set null,
  worker_name text,
  isolation text,
  fence int not null default 0,
  lease_expires_at timestamptz,
  last_seq int not null default 0,
  last_chunk int not null default 0,
  -- all that came, whether kept or beyond the limit
  stdout_bytes bigint not null default 0,
  stderr_bytes bigint not null default 0,
  -- set once the events' output has moved to blobs
  archived_at timestamptz,
  exit_code int,
  error text,
  output text,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  completed_at timestamptz,
  duration_ms bigint
);
-- Room for updates in place: a running session's row changes with every piece of output.
alter table sessions set (fillfactor = 70);
create index sessions_pending on sessions (org_id, created_at, id) where status = 'pending';
create index sessions_running on sessions (org_id) where status = 'running';
create index sessions_leases on sessions (lease_expires_at) where status = 'running';
create index sessions_held on sessions (worker_id) where status = 'running';
create index sessions_by_org on sessions (org_id, id desc);
create index sessions_labels on sessions using gin (labels jsonb_path_ops);

-- Signed callbacks about ended sessions; pg-boss holds when to try next.
create table deliveries (
  id text primary key,
  org_id text not null references organizations on delete cascade,
  session_id uuid not null references sessions on delete cascade,
  url text not null,
  status text not null default 'pending' check (status in ('pending', 'delivered', 'stopped', 'exhausted')),
  attempts int not null default 0,
  last_error text,
  last_status int,
  created_at timestamptz not null default now(),
  completed_at timestamptz
);
create unique index deliveries_by_session on deliveries (session_id);
