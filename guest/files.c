// Files: regular ones only, and no link is followed, whatever programs do to the tree meanwhile.
#include "agent.h"

static bool sort_fits(struct request *r, mode_t mode, mode_t wanted) {
  if ((mode & S_IFMT) == wanted) return true;
  if (S_ISLNK(mode)) return fail(r, LINK, wanted == S_IFDIR ? "a directory on the way is a link" : "it is a link");
  return fail(r, NOT_REGULAR, wanted == S_IFDIR ? "a directory on the way is none" : "it is no regular file");
}

// Goes down one name. Each step opens a plain name in a directory that is already open: nothing can be swapped in.
static bool enter(struct request *r, const char *name, bool make) {
  struct stat found;
  if (make && mkdirat(r->dir, name, 0755) && errno != EEXIST) return fail(r, BY_ERRNO, NULL);
  int next = openat(r->dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (next < 0 || fstat(next, &found)) return fail(r, BY_ERRNO, NULL);
  fd_close(&r->dir);
  r->dir = next;
  return sort_fits(r, found.st_mode, S_IFDIR);
}

// Leaves the parent directory in `dir` and the last name in `name`: that of a regular file, or of none if `may_miss`.
static bool locate(struct request *r, struct payload *p, bool may_miss) {
  struct stat found;
  char path[4096] = "", *at = path, *name;
  size_t size = p->end - p->at;
  if (!size || size >= sizeof path || *p->at != '/' || memchr(p->at, 0, size))
    return fail(r, IO, "a path must be absolute and shorter than 4096 bytes");
  memcpy(path, p->at, size);
  r->dir = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  while ((name = strsep(&at, "/"))) {
    if (strlen(name) >= sizeof r->name || !strcmp(name, ".."))
      return fail(r, IO, "a path may hold neither .. nor a name of more than 255 bytes");
    if (!at) strcpy(r->name, *name ? name : ".");
    else if (*name && strcmp(name, ".") && !enter(r, name, may_miss)) return false;
  }
  // Looked at without opening it: to open a device may have effects.
  if (!fstatat(r->dir, r->name, &found, AT_SYMLINK_NOFOLLOW)) return sort_fits(r, found.st_mode, S_IFREG);
  return (may_miss && errno == ENOENT) || fail(r, BY_ERRNO, NULL);
}

bool put_start(struct request *r, struct payload *p) {
  r->mode = take(p, 4) & 07777;
  r->missing = take(p, 8);
  if (!locate(r, p, true)) return false;
  snprintf(r->temp, sizeof r->temp, ".paws-put-%u", r->id);
  // One that is there already was left behind by an agent that was killed, maybe before this tree became a snapshot.
  unlinkat(r->dir, r->temp, 0);
  r->in = openat(r->dir, r->temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  return r->in >= 0 || fail(r, BY_ERRNO, NULL);
}

bool put_commit(struct request *r) {
  if (r->missing) return fail(r, IO, "less came than was announced");
  if (fchmod(r->in, r->mode) || renameat(r->dir, r->temp, r->dir, r->name)) return fail(r, BY_ERRNO, NULL);
  r->temp[0] = 0;
  answer(DONE, r->id, NULL, 0);
  request_free(r);
  return true;
}

bool get_start(struct request *r, struct payload *p) {
  struct stat found;
  uint64_t max = take(p, 8);
  if (!locate(r, p, false)) return false;
  // It may have been exchanged since: a FIFO or a leased file must not make us wait, nor a terminal become ours.
  int fd = r->out[0].fd = openat(r->dir, r->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &found)) return fail(r, BY_ERRNO, NULL);
  if (!sort_fits(r, found.st_mode, S_IFREG)) return false;
  if ((uint64_t)found.st_size > max) return fail(r, TOO_LARGE, "the file is larger than was asked for");
  // What it grows by meanwhile is left out, so that nobody can make this last for ever.
  r->out[0].left = found.st_size;
  answer(OPENED, r->id, &(uint64_t){htobe64(found.st_size)}, 8);
  return true;
}
