// Programs: each is a session of its own, with pipes or a terminal, and clean descriptors 0, 1 and 2 only.
#include "agent.h"

// Working directory, argv and env stand one after the other, each ended by NUL; argv and env get a NULL each.
static char **parse(struct payload *p, uint32_t argc, uint32_t envc) {
  char *at = (char *)p->at;
  size_t count = 0;
  for (const uint8_t *byte = p->at; byte < p->end; byte++) count += !*byte;
  if (!argc || !count || p->end[-1] || count != 1 + (uint64_t)argc + envc)
    die("protocol: an exec's strings do not match their number");
  char **argv = calloc(count + 1, sizeof *argv);
  if (!argv) die("out of memory");
  for (uint32_t i = 0; i < argc + envc; i++) argv[i + (i >= argc)] = at += strlen(at) + 1;
  return argv;
}

static void child(const char *cwd, char **argv, char **env, int theirs[3]) {
  setsid();
  for (int fd = 0; fd < 3; fd++) dup2(theirs[fd] < 0 ? theirs[0] : theirs[fd], fd);
  ioctl(0, TIOCSCTTY, 0);  // a pipe takes no notice
  for (int i = 1; i < NSIG; i++) signal(i, SIG_DFL);
  sigprocmask(SIG_SETMASK, &(sigset_t){0}, NULL);
  environ = env;
  bool entered = !chdir(cwd);
  if (entered) execvp(argv[0], argv);
  int why = errno;
  fprintf(stderr, "paws: can't %s %s: %s\n", entered ? "run" : "enter", entered ? argv[0] : cwd, strerror(why));
  _exit(why == ENOENT ? 127 : 126);
}

static bool open_pipes(struct request *r, int theirs[3]) {
  for (int i = 0; i < 3; i++) {
    int both[2], *ours = i ? &r->out[i - 1].fd : &r->in;
    if (pipe2(both, O_CLOEXEC)) return false;
    theirs[i] = both[i > 0];
    *ours = both[i == 0];
    fcntl(*ours, F_SETFL, O_NONBLOCK);
  }
  return true;
}

static bool open_pty(struct request *r, int theirs[3]) {
  r->out[0].fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  if (r->out[0].fd < 0 || unlockpt(r->out[0].fd)) return false;
  r->in = fcntl(r->out[0].fd, F_DUPFD_CLOEXEC, 3);
  theirs[0] = ioctl(r->out[0].fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  return r->in >= 0 && theirs[0] >= 0;
}

void exec_resize(struct request *r, struct payload *p) {
  struct winsize size = {.ws_row = take(p, 2)};
  size.ws_col = take(p, 2);
  if (r->pty) ioctl(r->out[0].fd, TIOCSWINSZ, &size);
}

bool exec_start(struct request *r, struct payload *p) {
  int theirs[3] = {-1, -1, -1};
  r->pty = take(p, 1) & 1;
  uint32_t argc = take(p, 4), envc = take(p, 4);
  bool opened = r->pty ? open_pty(r, theirs) : open_pipes(r, theirs);
  exec_resize(r, p);
  char **argv = parse(p, argc, envc);
  r->pid = opened ? fork() : -1;
  if (!r->pid) child((const char *)p->at, argv, argv + argc + 1, theirs);
  if (r->pid < 0) fail(r, BUSY, strerror(errno));
  for (int i = 0; i < 3; i++) fd_close(&theirs[i]);
  free(argv);
  return r->pid > 0;
}

void exec_signal(struct request *r, int number) {
  if (number < 1 || number >= NSIG) die("protocol: no such signal");
  // Once the program has been waited for, its number may belong to another; at first it is no group of its own yet.
  if (r->kind == EXEC && !r->exited && kill(-r->pid, number)) kill(r->pid, number);
}

// Orphans come to process 1 too and are waited for like the rest. Returns whether there is anybody left.
bool exec_reap(void) {
  int status;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
    for (struct request *r = requests; r < requests + MAX_REQUESTS; r++) {
      if (r->kind != EXEC || r->pid != pid || r->exited) continue;
      r->exited = true;
      r->status = status;
      fd_close(&r->in);
      // What the program has written before its end is still sent, and not what others go on writing to its pipes.
      for (int s = 0, there = 0; s < 2; s++, there = 0) {
        ioctl(r->out[s].fd, FIONREAD, &there);
        // A terminal can't tell how much is on its way through it, but its buffers hold no more than this.
        r->out[s].left = r->pty ? 2 * CHUNK : there;
      }
    }
  return pid == 0;
}
