// paws-slot: makes the place that a sandbox starts in, waits there, and then becomes the sandbox.
//
//   paws-slot --data DIR --name NAME --agent FILE --seccomp FILE --pids N [--owners UID]
//     [--cgroup DIR]... [--disk IMAGE [--disk-like TEMPLATE]]
//   paws-slot --listen (see listen.c)
//
// It talks to the driver over descriptor 3. It says "map PID", waits for a line while the driver maps its ids, says
// "ready DEVICE" and waits for its order. When the driver dies it reads end-of-file there, and goes too.
#define _GNU_SOURCE
#include "slot.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct options {
  const char *data, *name, *agent, *seccomp, *disk, *disk_like;
  rlim_t pids;
  uid_t owners;
};

void die(const char *what, ...)
{
  int error = errno;
  va_list args;
  va_start(args, what);
  dprintf(2, "paws-slot: ");
  vdprintf(2, what, args);
  dprintf(2, error ? ": %s\n" : "\n", strerror(error));
  exit(70);
}

void write_file(const char *path, const char *text)
{
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) die("can't open %s", path);
  if (write(fd, text, strlen(text)) < 0) die("can't write %s", path);
  close(fd);
}

// Done first, so that every process and page of the sandbox is counted where it belongs.
static void join_cgroup(const char *directory)
{
  char path[4096];
  snprintf(path, sizeof path, "%s/cgroup.procs", directory);
  write_file(path, "0");
}

static void parse(int argc, char **argv, struct options *o)
{
  for (int i = 1; i + 1 < argc; i += 2) {
    const char *name = argv[i], *value = argv[i + 1];
    if (!strcmp(name, "--data")) o->data = value;
    else if (!strcmp(name, "--name")) o->name = value;
    else if (!strcmp(name, "--agent")) o->agent = value;
    else if (!strcmp(name, "--seccomp")) o->seccomp = value;
    else if (!strcmp(name, "--disk")) o->disk = value;
    else if (!strcmp(name, "--disk-like")) o->disk_like = value;
    else if (!strcmp(name, "--pids")) o->pids = strtoul(value, NULL, 10);
    else if (!strcmp(name, "--owners")) o->owners = strtoul(value, NULL, 10);
    else if (!strcmp(name, "--cgroup")) join_cgroup(value);
    else errno = 0, die("unknown option %s", name);
  }
  if (!o->data || !o->name || !o->agent || !o->seccomp || !o->pids) errno = 0, die("an option is missing");
}

static void limit(int resource, rlim_t soft, rlim_t hard)
{
  struct rlimit now;
  getrlimit(resource, &now);
  if (now.rlim_max < hard) hard = now.rlim_max;
  struct rlimit then = {soft < hard ? soft : hard, hard};
  if (setrlimit(resource, &then)) die("can't set a resource limit");
}

// A descriptor that the program to come inherits under a number it is told.
static void open_as(int fd, const char *path)
{
  int opened = open(path, O_RDONLY | O_CLOEXEC);
  if (opened < 0) die("can't open %s", path);
  if (opened != fd) {
    if (dup2(opened, fd) < 0) die("can't place %s", path);
    close(opened);
  } else if (fcntl(fd, F_SETFD, 0)) die("can't keep %s", path);
}

static void become_sandbox(const struct options *o, int user_namespace)
{
  char upper[512], hosts[600];
  char **order = await_order();
  snprintf(upper, sizeof upper, "slots/%s", o->name);
  snprintf(hosts, sizeof hosts, "%s/disk/upper/etc/hosts", upper);
  write_file(hosts, order[1]);
  mount_root(order[0], upper);
  mount_terminals();
  if (chdir("/")) die("can't change to /");
  if (setns(user_namespace, CLONE_NEWUSER)) die("can't enter the nested user namespace");
  bound_capabilities();
  if (close(CONTROL) || close_range(SECCOMP + 1, ~0U, 0)) die("can't close descriptors");
  char *environment[] = {NULL};
  execve(order[2], order + 2, environment);
  die("can't run %s", order[2]);
}

int main(int argc, char **argv)
{
  struct options o = {0};
  char device[64] = "-", ready[80];
  if (argc == 2 && !strcmp(argv[1], "--listen")) return listen_in_slot();
  parse(argc, argv, &o);
  open_as(AGENT_BINARY, o.agent);
  open_as(SECCOMP, o.seccomp);
  umask(022);
  limit(RLIMIT_CORE, 0, 0);
  limit(RLIMIT_NOFILE, 1024, 524288);
  // From here on everything is found from the working directory: sandboxed root may not pass the folders above it.
  if (chdir(o.data)) die("can't change to %s", o.data);
  if (o.disk) {
    if (o.disk_like) copy_disk(o.disk_like, o.disk);
    if (unshare(CLONE_NEWNS)) die("can't make a mount namespace");
    private_mounts();
    char at[512];
    snprintf(at, sizeof at, "slots/%s/disk", o.name);
    mount_disk(o.disk, at, device, sizeof device);
  }
  enter_user_namespace(o.owners);
  if (unshare(CLONE_NEWNS)) die("can't make a mount namespace");
  private_mounts();
  network();
  // Counted over all users inside, because it stands when the nested user namespace is made.
  limit(RLIMIT_NPROC, o.pids, o.pids);
  int user_namespace = nested_user_namespace();
  prepare_upper(o.name, o.disk);
  snprintf(ready, sizeof ready, "ready %s", device);
  say(ready);
  become_sandbox(&o, user_namespace);
}
