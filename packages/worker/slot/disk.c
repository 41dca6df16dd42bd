// What a sandbox writes to: a filesystem of its own size in a file, or a folder where that can't be had.
#define _GNU_SOURCE
#include "slot.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

// Copies only what has been written: a new filesystem is nearly all hole.
void copy_disk(const char *from, const char *to)
{
  struct stat like;
  int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (in < 0 || fstat(in, &like)) die("can't open %s", from);
  if (out < 0 || ftruncate(out, like.st_size)) die("can't make %s", to);
  for (off_t at = 0; (at = lseek(in, at, SEEK_DATA)) >= 0;) {
    off_t hole = lseek(in, at, SEEK_HOLE);
    for (off_t written = at; at < hole;)
      if (copy_file_range(in, &at, out, &written, hole - at, 0) <= 0) die("can't copy %s", from);
  }
  if (errno != ENXIO) die("can't read %s", from);
  close(in);
  close(out);
}

static int attach(const char *image, char *device, int size)
{
  struct loop_config config = {.info.lo_flags = LO_FLAGS_AUTOCLEAR};
  int file = open(image, O_RDWR | O_CLOEXEC), control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
  if (file < 0) die("can't open %s", image);
  if (control < 0) die("can't open /dev/loop-control");
  config.fd = file;
  // Another process may take the free device first.
  for (int tries = 0; tries < 64; tries++) {
    int number = ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0) break;
    snprintf(device, size, "/dev/loop%d", number);
    int loop = open(device, O_RDWR | O_CLOEXEC);
    if (loop < 0) break;
    if (!ioctl(loop, LOOP_CONFIGURE, &config)) {
      close(file);
      close(control);
      return loop;
    }
    close(loop);
    if (errno != EBUSY) break;
  }
  die("can't attach a loop device to %s", image);
}

// The device frees itself with the last mount, and that goes with the last process of the sandbox.
void mount_disk(const char *image, const char *at, char *device, int size)
{
  int loop = attach(image, device, size);
  if (mount(device, at, "ext4", MS_NOSUID | MS_NODEV | MS_NOATIME, "discard,noinit_itable"))
    die("can't mount %s at %s", device, at);
  close(loop);
}

static void folder(const char *slot, const char *name, mode_t mode)
{
  char path[512];
  snprintf(path, sizeof path, "slots/%s/disk/%s", slot, name);
  // With a umask of 022 a mode like 1777 needs a second call.
  if (mkdir(path, mode) || chmod(path, mode)) die("can't make %s", path);
}

// A folder that exists is refused: in a place that others could have written to, it would be theirs.
void prepare_upper(const char *slot, bool mounted)
{
  char path[512];
  if (!mounted) folder(slot, "", 0700);
  folder(slot, "work", 0700);
  folder(slot, "upper", 0755);
  folder(slot, "upper/etc", 0755);
  folder(slot, "upper/tmp", 01777);
  folder(slot, "upper/workspace", 0755);
  folder(slot, "upper/output", 0755);
  snprintf(path, sizeof path, "slots/%s/disk/upper/etc/resolv.conf", slot);
  write_file(path, "nameserver 127.0.0.1\n");
}

/*
 * The root filesystem is mounted over /tmp of this mount namespace, which every host has and everybody can reach. Its
 * options are names relative to here, so the mount table inside tells nothing of the host.
 */
void mount_root(const char *image, const char *slot)
{
  char options[256];
  int lower = open(image, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (lower < 0) die("can't open the image %s", image);
  if (chdir(slot)) die("can't change to %s", slot);
  // Throw-away data need not survive a power cut: `volatile` spares every sync.
  snprintf(options, sizeof options,
           "userxattr,volatile,lowerdir=/proc/self/fd/%d,upperdir=disk/upper,workdir=disk/work", lower);
  if (mount("root", "/tmp", "overlay", MS_NODEV | MS_NOATIME, options)) die("can't mount the image %s", image);
  close(lower);
}

// Over the host's own of this mount namespace. The whole host has some thousands of terminals: one sandbox gets a few.
void mount_terminals(void)
{
  const char *options = "newinstance,ptmxmode=0666,mode=620,max=128";
  if (mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)) die("can't mount terminals at /dev/pts");
}
