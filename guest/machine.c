// What process 1 owes the rest: a clean start, reaping, the clock, entropy, and an orderly end.
#define _GNU_SOURCE
#include "agent.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int children = -1;

static struct { enum { OPEN, TERMINATING, KILLING } phase; uint32_t id; int64_t until; } closing;

static int64_t now_ms(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

void machine_open(int fd)
{
  sigset_t child;
  // Programs run as the same user: they shall neither trace us nor take our stream.
  prctl(PR_SET_DUMPABLE, 0);
  umask(022);
  signal(SIGPIPE, SIG_IGN);
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, NULL);
  // Whatever else the host has left open is closed, and 0 to 2 are taken: children get theirs by dup2.
  stream = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (stream < 0 || fcntl(stream, F_SETFL, fcntl(stream, F_GETFL) | O_NONBLOCK)) die("--fd names no open descriptor");
  for (int i = 0; i < 3; i++)
    if (fcntl(i, F_GETFD) < 0 && fcntl(stream, F_DUPFD_CLOEXEC, i) != i) die("can't fill descriptors 0 to 2");
  if ((stream > 3 && close_range(3, stream - 1, 0)) || close_range(stream + 1, ~0U, 0)) die("can't close descriptors");
  children = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  if (children < 0) die("can't watch over children");
}

// Orphans come to process 1 too, and are waited for like the rest.
void machine_reap(void)
{
  struct signalfd_siginfo info;
  int status;
  while (read(children, &info, sizeof info) > 0) continue;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) exec_ended(pid, status);
}

void machine_time(uint32_t id, struct payload *p)
{
  struct timespec now = {.tv_sec = take(p, 8)};
  now.tv_nsec = take(p, 4);
  if (clock_settime(CLOCK_REALTIME, &now)) answer_error(id, UNSUPPORTED, strerror(errno));
  else answer(DONE, id, NULL, 0);
}

void machine_reseed(uint32_t id, struct payload *p)
{
  struct { int bits, size; uint8_t data[512]; } seed = {0};
  if (p->end - p->at > (ptrdiff_t)sizeof seed.data) die("protocol: a seed is longer than 512 bytes");
  seed.size = p->end - p->at;
  seed.bits = seed.size * 8;
  if (seed.size) memcpy(seed.data, p->at, seed.size);
  int fd = open("/dev/urandom", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0 || ioctl(fd, RNDADDENTROPY, &seed) || ioctl(fd, RNDRESEEDCRNG)) answer_error(id, UNSUPPORTED, strerror(errno));
  else answer(DONE, id, NULL, 0);
  fd_close(&fd);
}

void machine_shutdown(uint32_t id, struct payload *p)
{
  uint32_t grace_ms = take(p, 4);
  if (closing.phase) return answer_error(id, BUSY, "the sandbox is shutting down");
  closing.phase = TERMINATING;
  closing.id = id;
  closing.until = now_ms() + grace_ms;
  kill(-1, SIGTERM);
  // A stopped program would not hear it otherwise.
  kill(-1, SIGCONT);
}

bool machine_closing(void)
{
  return closing.phase != OPEN;
}

// Moves an orderly end along; returns for how many milliseconds there is nothing to do, -1 for ever.
int machine_tick(void)
{
  if (closing.phase == OPEN) return -1;
  bool alone = waitpid(-1, NULL, WNOHANG | WNOWAIT) < 0 && errno == ECHILD;
  int64_t left = closing.until - now_ms();
  if (closing.phase == TERMINATING && (alone || left <= 0)) {
    closing.phase = KILLING;
    kill(-1, SIGKILL);
    // How the programs ended is still told, unless nobody reads it.
    closing.until = now_ms() + (left = 1000);
  }
  if (closing.phase == KILLING && ((alone && !requests_running()) || left <= 0)) {
    answer(DONE, closing.id, NULL, 0);
    out_flush();
    struct pollfd writable = {stream, POLLOUT, 0};
    while (out_pending() && poll(&writable, 1, 1000) > 0) out_flush();
    exit(0);
  }
  return left < 100 ? (int)left : 100;
}
