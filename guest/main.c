// paws-guest --fd N: serves the sandbox whose process 1 it is over descriptor N, until that ends.
#include "agent.h"
#include <err.h>
#include <linux/random.h>
#include <sys/prctl.h>
#include <time.h>

// An orderly end under way: the request for it, and when patience ends.
static struct { uint32_t id; int64_t until; } closing;

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void answer_errno(uint32_t id, bool failed) {
  failed ? answer_error(id, UNSUPPORTED, strerror(errno)) : answer(DONE, id, NULL, 0);
}

void machine_time(uint32_t id, struct payload *p) {
  struct timespec now = {.tv_sec = take(p, 8)};
  now.tv_nsec = take(p, 4);
  answer_errno(id, clock_settime(CLOCK_REALTIME, &now));
}

void machine_reseed(uint32_t id, struct payload *p) {
  struct { int bits, size; uint8_t data[512]; } seed = {.size = p->end - p->at, .bits = 8 * (p->end - p->at)};
  if ((size_t)seed.size > sizeof seed.data) die("protocol: a seed is longer than 512 bytes");
  memcpy(seed.data, p->at, seed.size);
  int fd = open("/dev/urandom", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  answer_errno(id, fd < 0 || ioctl(fd, RNDADDENTROPY, &seed) || ioctl(fd, RNDRESEEDCRNG));
  fd_close(&fd);
}

void machine_shutdown(uint32_t id, struct payload *p) {
  uint32_t grace_ms = take(p, 4);
  if (closing.until) return answer_error(id, BUSY, "the sandbox is shutting down");
  closing.id = id;
  closing.until = now_ms() + grace_ms;
  kill(-1, SIGTERM);
  kill(-1, SIGCONT);  // or a stopped program would not hear it
}

// Moves an orderly end along. Returns for how many milliseconds nothing else is due, -1 for ever.
static int tick(void) {
  if (!closing.until) return -1;
  bool busy = exec_reap();
  for (struct request *r = requests; r < requests + MAX_REQUESTS; r++) busy |= r->kind == EXEC;
  // Whoever is left then dies with process 1.
  if (busy && now_ms() < closing.until) return 20;
  answer(DONE, closing.id, NULL, 0);
  while (!out_flush() && poll(&(struct pollfd){stream, POLLOUT, 0}, 1, 1000) > 0) continue;
  exit(0);
}

static void on_child(int number) { (void)number; }

int main(int argc, char **argv) {
  sigset_t child = {0};
  // When it ends it kills whatever it sees, so it must see nothing but its sandbox.
  if (argc != 3 || strcmp(argv[1], "--fd") || getpid() != 1)
    errx(2, "usage: paws-guest --fd N, as process 1 of a pid namespace or of a machine");
  // Programs run as the same user: they shall neither trace us nor take our stream.
  prctl(PR_SET_DUMPABLE, 0);
  umask(022);
  signal(SIGPIPE, SIG_IGN);
  // Handled, or it would not wake us; blocked, but for the moment in which we wait.
  signal(SIGCHLD, on_child);
  sigaddset(&child, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child, NULL);
  // Whatever else the host has left open is closed, and 0 to 2 are taken: programs get theirs by dup2.
  stream = fcntl(atoi(argv[2]), F_DUPFD_CLOEXEC, 3);
  if (stream < 0 || fcntl(stream, F_SETFL, O_NONBLOCK)) die("--fd names no open descriptor");
  for (int i = 0; i < 3; i++)
    if (fcntl(i, F_GETFD) < 0) fcntl(stream, F_DUPFD_CLOEXEC, i);
  if ((stream > 3 && close_range(3, stream - 1, 0)) || close_range(stream + 1, ~0U, 0)) die("can't close descriptors");
  for (;;) step(tick());
}
