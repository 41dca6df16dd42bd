// Programs: each is a session of its own, with pipes or a terminal, and clean descriptors 0, 1 and 2 only.
#define _GNU_SOURCE
#include "agent.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WITH_PTY = 1, WITH_STDIN = 2 };

// Strings of an exec that fill more than one frame are gathered here, one request at a time.
static struct { uint8_t *data; size_t len; uint32_t id; } block;

struct program {
  char *cwd, **argv, **env;
  bool pty;
  int fds[3];
};

void exec_reset(void)
{
  free(block.data);
  memset(&block, 0, sizeof block);
}

void exec_part(uint32_t id, struct payload *p)
{
  size_t size = p->end - p->at;
  if (block.len && block.id != id) die("protocol: the parts of two requests are mixed");
  if (block.len + size > MAX_STRINGS) die("protocol: the strings of an exec are too large");
  uint8_t *data = realloc(block.data, block.len + size + 1);
  if (!data) die("out of memory");
  if (size) memcpy(data + block.len, p->at, size);
  block.data = data;
  block.len += size;
  block.id = id;
}

// cwd, argv and env one after the other, each ended by NUL.
static void parse(struct program *program, uint32_t argc, uint32_t envc)
{
  size_t count = 0;
  for (size_t i = 0; i < block.len; i++) count += !block.data[i];
  if (!argc || !block.len || block.data[block.len - 1] || count != 1 + (uint64_t)argc + envc)
    die("protocol: an exec's strings do not match their number");
  char **argv = calloc(count + 1, sizeof *argv), *at = (char *)block.data;
  if (!argv) die("out of memory");
  program->cwd = at;
  program->argv = argv;
  program->env = argv + argc + 1;
  for (uint32_t i = 0; i < argc + envc; i++) {
    at += strlen(at) + 1;
    argv[i + (i >= argc)] = at;
  }
}

static void run(char **argv, char **env)
{
  const char *path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  int denied = 0;
  if (strchr(argv[0], '/')) {
    execve(argv[0], argv, env);
    return;
  }
  for (char **e = env; *e; e++)
    if (!strncmp(*e, "PATH=", 5)) path = *e + 5;
  errno = ENOENT;
  for (size_t n; argv[0][0]; path += n + 1) {
    char file[4096];
    n = strcspn(path, ":");
    if (n && n + strlen(argv[0]) + 2 <= sizeof file) {
      sprintf(file, "%.*s/%s", (int)n, path, argv[0]);
      execve(file, argv, env);
      if (errno == EACCES) denied = EACCES;
      else if (errno != ENOENT && errno != ENOTDIR) return;
    }
    if (!path[n]) break;
  }
  errno = denied ? denied : ENOENT;
}

static void child(struct program *program)
{
  struct sigaction standard = {.sa_handler = SIG_DFL};
  sigset_t none;
  setsid();
  for (int fd = 0; fd < 3; fd++) dup2(program->fds[fd], fd);
  if (program->pty) ioctl(0, TIOCSCTTY, 0);
  for (int i = 1; i < NSIG; i++) sigaction(i, &standard, NULL);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  umask(022);
  if (chdir(program->cwd)) {
    fprintf(stderr, "paws: can't enter %s: %s\n", program->cwd, strerror(errno));
    _exit(126);
  }
  run(program->argv, program->env);
  int why = errno;
  fprintf(stderr, "paws: can't run %s: %s\n", program->argv[0], strerror(why));
  _exit(why == ENOENT ? 127 : 126);
}

// Ours end up in the request, the program's in `fds`; ours alone don't block.
static bool open_pipes(struct request *r, struct program *program)
{
  int pipes[3][2];
  for (int i = 0; i < 3; i++) {
    if (pipe2(pipes[i], O_CLOEXEC)) {
      for (int j = 0; j < i; j++) close(program->fds[j]);
      return false;
    }
    program->fds[i] = pipes[i][!!i];
    int ours = pipes[i][!i];
    fcntl(ours, F_SETFL, O_NONBLOCK);
    if (i) outlet_open(&r->out[i - 1], ours, UINT64_MAX);
    else r->in = ours;
  }
  return true;
}

static bool open_pty(struct request *r, struct program *program)
{
  int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  if (master < 0) return false;
  outlet_open(&r->out[0], master, UINT64_MAX);
  r->in = fcntl(master, F_DUPFD_CLOEXEC, 3);
  if (r->in < 0 || unlockpt(master)) return false;
  int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  for (int i = 0; i < 3; i++) program->fds[i] = slave;
  return slave >= 0;
}

static void spawn(struct request *r, struct program *program)
{
  if (!(r->pty ? open_pty(r, program) : open_pipes(r, program))) return request_fail(r, IO, strerror(errno));
  r->pid = fork();
  if (!r->pid) child(program);
  int why = errno;
  for (int i = 0; i < (r->pty ? 1 : 3); i++) close(program->fds[i]);
  if (r->pid < 0) request_fail(r, BUSY, strerror(why));
}

// Without a request (all are taken) only the strings are let go.
void exec_start(struct request *r, struct payload *p)
{
  uint8_t flags = take(p, 1);
  uint16_t rows = take(p, 2), cols = take(p, 2);
  uint32_t argc = take(p, 4), envc = take(p, 4);
  struct program program = {.pty = flags & WITH_PTY};
  if (r) {
    exec_part(r->id, p);
    parse(&program, argc, envc);
    r->pty = program.pty;
    if (machine_closing()) request_fail(r, BUSY, "the sandbox is shutting down");
    else spawn(r, &program);
    if (r->kind == EXECUTING) exec_resize(r, rows, cols);
    if (r->kind == EXECUTING && !(flags & WITH_STDIN)) {
      if (r->pty && write(r->in, "\4", 1) < 0) r->ending = true;
      fd_close(&r->in);
    }
    free(program.argv);
  }
  exec_reset();
}

void exec_signal(struct request *r, int number)
{
  if (number < 1 || number >= NSIG) die("protocol: no such signal");
  // Once the program has been waited for, its number may belong to another.
  if (r->kind != EXECUTING || r->exited) return;
  // It may not have become a session yet.
  if (kill(-r->pid, number) && errno == ESRCH) kill(r->pid, number);
}

void exec_resize(struct request *r, uint16_t rows, uint16_t cols)
{
  struct winsize size = {.ws_row = rows, .ws_col = cols};
  if (r->pty && r->out[0].fd >= 0) ioctl(r->out[0].fd, TIOCSWINSZ, &size);
}

// What the program has written before its end is still sent, and not what others go on writing to its pipes.
void exec_ended(pid_t pid, int status)
{
  for (struct request *r = requests; r < requests + MAX_REQUESTS; r++) {
    if (r->kind != EXECUTING || r->pid != pid || r->exited) continue;
    r->exited = true;
    r->status = status;
    fd_close(&r->in);
    r->held_len = 0;
    for (int s = 0; s < 2; s++) {
      int there = 0;
      // A terminal can't tell how much is on its way through it: at most its buffers hold.
      if (r->out[s].fd >= 0 && (r->pty || !ioctl(r->out[s].fd, FIONREAD, &there)))
        r->out[s].left = r->pty ? 2 * CHUNK : (uint64_t)there;
    }
    return request_check(r);
  }
}
