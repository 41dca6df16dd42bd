// Files: regular ones only, and no link is followed, whatever programs do to the tree meanwhile.
#define _GNU_SOURCE
#include "agent.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static bool fail(struct request *r, int error)
{
  request_fail(r, error == ENOENT ? NOT_FOUND : error == ELOOP ? LINK : IO, strerror(error));
  return false;
}

// Goes down one name. Each step opens a plain name inside a directory that is already open: nothing can be swapped in.
static bool enter(struct request *r, const char *name, bool make)
{
  struct stat found;
  int next = openat(r->dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (next < 0 && errno == ENOENT && make && (!mkdirat(r->dir, name, 0755) || errno == EEXIST))
    next = openat(r->dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (next < 0) return fail(r, errno);
  fd_close(&r->dir);
  r->dir = next;
  if (fstat(next, &found)) return fail(r, errno);
  if (S_ISDIR(found.st_mode)) return true;
  if (S_ISLNK(found.st_mode)) request_fail(r, LINK, "a directory on the way is a link");
  else request_fail(r, NOT_REGULAR, "a directory on the way is none");
  return false;
}

// Leaves the parent directory in `dir` and the last name in `name`; answers itself when it can't.
static bool locate(struct request *r, struct payload *p, bool make)
{
  char path[4096] = "", *at = path;
  size_t size = p->end - p->at;
  if (!size || size >= sizeof path || *p->at != '/' || memchr(p->at, 0, size)) {
    request_fail(r, IO, "a path must be absolute and shorter than 4096 bytes");
    return false;
  }
  memcpy(path, p->at, size);
  r->dir = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (r->dir < 0) return fail(r, errno);
  while (*at) {
    char *name = at + strspn(at, "/");
    size_t length = strcspn(name, "/");
    at = name + length;
    bool last = !*at;
    *at = 0;
    if (!last) at++;
    if (!strcmp(name, "..") || length >= sizeof r->name) {
      request_fail(r, IO, "a path may hold neither .. nor a name of more than 255 bytes");
      return false;
    }
    if (last) memcpy(r->name, name, length + 1);
    else if (length && strcmp(name, ".") && !enter(r, name, make)) return false;
  }
  return true;
}

// Whether the last name is a regular file, without opening it: opening a device may have effects.
static bool regular(struct request *r, bool may_miss)
{
  struct stat found;
  if (!r->name[0] || !strcmp(r->name, ".")) {
    request_fail(r, NOT_REGULAR, "it is a directory");
    return false;
  }
  if (fstatat(r->dir, r->name, &found, AT_SYMLINK_NOFOLLOW)) return may_miss && errno == ENOENT ? true : fail(r, errno);
  if (S_ISREG(found.st_mode)) return true;
  if (S_ISLNK(found.st_mode)) request_fail(r, LINK, "it is a link");
  else request_fail(r, NOT_REGULAR, S_ISDIR(found.st_mode) ? "it is a directory" : "it is no regular file");
  return false;
}

void put_start(struct request *r, struct payload *p)
{
  uint64_t random = 0;
  r->mode = take(p, 4) & 07777;
  r->size = take(p, 8);
  if (!locate(r, p, true) || !regular(r, true)) return;
  if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0) random = r->id;
  snprintf(r->temp, sizeof r->temp, ".paws-%016llx", (unsigned long long)random);
  r->in = openat(r->dir, r->temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (r->in >= 0) return;
  r->temp[0] = 0;
  fail(r, errno);
}

void put_data(struct request *r, const uint8_t *data, size_t size)
{
  if (size > r->size - r->done) return request_fail(r, TOO_LARGE, "more came than was announced");
  r->done += size;
  while (size) {
    ssize_t n = write(r->in, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      fail(r, n ? errno : EIO);
      return;
    }
    data += n;
    size -= n;
  }
}

void put_commit(struct request *r)
{
  if (r->done != r->size) return request_fail(r, IO, "less came than was announced");
  if (fchmod(r->in, r->mode) || renameat(r->dir, r->temp, r->dir, r->name)) {
    fail(r, errno);
    return;
  }
  r->temp[0] = 0;
  answer(DONE, r->id, NULL, 0);
  request_free(r);
}

void get_start(struct request *r, struct payload *p)
{
  struct stat found;
  uint8_t size[8];
  uint64_t max = take(p, 8);
  if (!locate(r, p, false) || !regular(r, false)) return;
  // It may have been exchanged since: a FIFO or a leased file must not make us wait, nor a terminal become ours.
  int fd = openat(r->dir, r->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) {
    fail(r, errno);
    return;
  }
  outlet_open(&r->out[0], fd, 0);
  if (fstat(fd, &found) || !S_ISREG(found.st_mode)) return request_fail(r, NOT_REGULAR, "it is no regular file");
  if ((uint64_t)found.st_size > max) return request_fail(r, TOO_LARGE, "the file is larger than was asked for");
  // A file that grows is cut off there, so that nobody can make this last for ever.
  r->out[0].left = found.st_size;
  put32(size, (uint64_t)found.st_size >> 32);
  put32(size + 4, found.st_size);
  answer(OPENED, r->id, size, sizeof size);
}
