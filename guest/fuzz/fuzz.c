// Feeds the agent what no honest host would send, with the sanitizers watching. What could reach outside the fuzzer (other
// processes, the clock, files beyond a scratch folder) is replaced; all else is the agent as it is.
#include "../agent.h"
#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <linux/random.h>
#include <setjmp.h>
#include <sys/prctl.h>
#include <time.h>

static jmp_buf ended;
static int scratch, first_fd;
static pid_t programs[MAX_REQUESTS], last_program;
static unsigned patience;
static bool finishing;
static uint8_t *exact, written[9000];

static void __attribute__((noreturn)) fuzz_exit(int code) {
  longjmp(ended, code + 1);
}

static pid_t fuzz_fork(void) {
  for (int i = 0; i < MAX_REQUESTS; i++)
    if (!programs[i]) return programs[i] = ++last_program;
  errno = EAGAIN;
  return -1;
}

// Programs end one by one, some by a signal: few of them while there is input, all of them after it.
static pid_t fuzz_waitpid(pid_t pid, int *status, int options) {
  (void)pid, (void)options;
  bool any = false;
  for (int i = 0; i < MAX_REQUESTS; i++) {
    any |= programs[i] != 0;
    if (!programs[i] || (!finishing && ++patience % 64)) continue;
    pid_t gone = programs[i];
    programs[i] = 0;
    *status = gone % 3 ? (gone & 0xff) << 8 : SIGKILL;
    return gone;
  }
  errno = ECHILD;
  return any ? 0 : -1;
}

// The other ends stay open, as if held by a program that has written something and reads nothing.
static int fuzz_pipe2(int both[2], int flags) {
  if (pipe2(both, flags | O_NONBLOCK)) return -1;
  if (dup(both[0]) < 0 || dup(both[1]) < 0) return -1;
  return write(both[1], written, patience * 999 % sizeof written) < -1;
}

static int fuzz_kill(pid_t pid, int number) { return (void)pid, (void)number, errno = ESRCH, -1; }

static int fuzz_settime(clockid_t clock, const struct timespec *now) { return (void)clock, (void)now, errno = EPERM, -1; }

static int fuzz_open(const char *path, int flags) {
  return strcmp(path, "/") ? (errno = ENOENT, -1) : ((void)flags, fcntl(scratch, F_DUPFD_CLOEXEC, 3));
}

#define pipe2 fuzz_pipe2
#define exit fuzz_exit
#define fork fuzz_fork
#define waitpid fuzz_waitpid
#define kill fuzz_kill
#define clock_settime fuzz_settime
#define open fuzz_open
#define main guest_main
#define fprintf(...) ((void)0)
#include "../exec.c"
#include "../files.c"
#include "../main.c"
#include "../requests.c"

// Each payload stands in memory of just its size, so that reading beyond it is seen.
static void fuzz_dispatch(uint8_t type, uint32_t id, struct payload *p) {
  size_t size = p->end - p->at;
  free(exact);
  exact = malloc(size);
  if (size) memcpy(exact, p->at, size);
  dispatch(type, id, &(struct payload){exact, exact + size});
}
#define dispatch fuzz_dispatch
#include "../stream.c"

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  char folder[] = "/tmp/paws-fuzz-XXXXXX";
  if (!mkdtemp(folder)) err(1, "%s", folder);
  scratch = openat(AT_FDCWD, folder, O_PATH | O_DIRECTORY);
  if (scratch < 0) err(1, "%s", folder);
  // The tree that paths of the input can hit.
  int dir = openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY);
  if (mkdirat(dir, "d", 0755) || symlinkat("d", dir, "l") || mkfifoat(dir, "p", 0600)) err(1, "%s", folder);
  int file = openat(dir, "f", O_WRONLY | O_CREAT, 0644);
  if (file < 0 || ftruncate(file, 300000)) err(1, "%s", folder);
  close(file);
  close(dir);
  signal(SIGPIPE, SIG_IGN);
  first_fd = dup(0);
  close(first_fd);
  return 0;
}

static void forget(void) {
  for (struct request *r = requests; r < requests + MAX_REQUESTS; r++)
    if (r->kind) request_free(r);
  close_range(first_fd, ~0U, 0);
  free(exact);
  exact = NULL;
  in_len = out_len = out_at = 0;
  greeted = false;
  memset(&closing, 0, sizeof closing);
  memset(programs, 0, sizeof programs);
}

// Lets the agent act until it has read all, while this side reads every other time only.
static void feed(int host, const uint8_t *data, size_t size) {
  static uint8_t dropped[4 * CHUNK];
  for (int idle = 0; idle < 3; idle += !size) {
    ssize_t n = size ? write(host, data, size) : 0;
    if (n > 0) data += n, size -= n;
    step(0);
    if (out_len > sizeof out || in_len > sizeof in) abort();
    if (patience++ % 2) n = read(host, dropped, sizeof dropped);
  }
}

// Input: records `type, id, length, payload`, of which frames are made. A length above 250 stands for a large one, for
// which the payload's last byte is repeated; a type of 0xff passes the payload on as it is.
static void play(int host, const uint8_t *data, size_t size) {
  static const uint8_t hello[] = {0, 0, 0, 9, HELLO, 0, 0, 0, 0, 0, 0, 0, VERSION};
  static const uint32_t large[] = {300, 5000, 20000, CHUNK + 1, CHUNK + 1};
  static uint8_t frame[9 + CHUNK + 1];
  feed(host, hello, sizeof hello);
  while (size > 3) {
    size_t have = data[2] < size - 3 ? data[2] : size - 3;
    uint32_t length = data[2] > 250 ? large[data[2] - 251] : have;
    if (data[2] > 250 && have > 20) have = 20;
    memcpy(frame, &(uint32_t){htobe32(length + 5)}, 4);
    memcpy(frame + 4, (uint8_t[]){data[0] % 18, 0, 0, 0, data[1] % 8}, 5);
    memcpy(frame + 9, data + 3, have);
    memset(frame + 9 + have, data[2 + have], length - have);
    feed(host, data[0] == 0xff ? frame + 9 : frame, data[0] == 0xff ? length : 9 + length);
    data += 3 + have;
    size -= 3 + have;
  }
  finishing = true;
  for (int i = 0; i < 8; i++) {
    if (closing.until) closing.until = 1;
    step(closing.until ? tick() : 0);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  int both[2];
  patience = 0;
  finishing = false;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, both)) err(1, "socketpair");
  stream = both[0];
  if (!setjmp(ended)) play(both[1], data, size);
  forget();
  return 0;
}
