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

static void __attribute__((noreturn)) fuzz_exit(int code) {
  longjmp(ended, code + 1);
}

static pid_t fuzz_fork(void) {
  for (int i = 0; i < MAX_REQUESTS; i++)
    if (!programs[i]) return programs[i] = ++last_program;
  errno = EAGAIN;
  return -1;
}

// Programs end one by one, some by a signal.
static pid_t fuzz_waitpid(pid_t pid, int *status, int options) {
  (void)pid, (void)options;
  bool any = false;
  for (int i = 0; i < MAX_REQUESTS; i++) {
    any |= programs[i] != 0;
    if (!programs[i] || ++patience % 5) continue;
    pid_t gone = programs[i];
    programs[i] = 0;
    *status = gone % 3 ? (gone & 0xff) << 8 : SIGKILL;
    return gone;
  }
  errno = ECHILD;
  return any ? 0 : -1;
}

static int fuzz_kill(pid_t pid, int number) { return (void)pid, (void)number, errno = ESRCH, -1; }

static int fuzz_settime(clockid_t clock, const struct timespec *now) { return (void)clock, (void)now, errno = EPERM, -1; }

static int fuzz_open(const char *path, int flags) {
  return strcmp(path, "/") ? (errno = ENOENT, -1) : ((void)flags, fcntl(scratch, F_DUPFD_CLOEXEC, 3));
}

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

// Input: records `type, id, length, payload`, of which frames are made; a type of 0xff passes raw bytes on.
static void play(int host, const uint8_t *data, size_t size) {
  static const uint8_t hello[] = {0, 0, 0, 9, HELLO, 0, 0, 0, 0, 0, 0, 0, VERSION};
  feed(host, hello, sizeof hello);
  while (size >= 3) {
    uint8_t frame[9 + 255] = {0, 0, 0, data[2] + 5, data[0] % 18, 0, 0, 0, data[1] % 8};
    bool raw = data[0] == 0xff;
    size_t length = data[2] < size - 3 ? data[2] : size - 3;
    if (data[2] > 250) frame[2] = 1, frame[3] = data[2] - 251;
    memcpy(frame + 9, data + 3, length);
    feed(host, raw ? frame + 9 : frame, raw ? length : 9u + data[2]);
    data += 3 + length;
    size -= 3 + length;
  }
  for (int i = 0; i < 8; i++) {
    if (closing.until) closing.until = 1;
    step(closing.until ? tick() : 0);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  int both[2];
  patience = 0;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, both)) err(1, "socketpair");
  stream = both[0];
  if (!setjmp(ended)) play(both[1], data, size);
  forget();
  return 0;
}
