// The user namespaces of a slot: A owns its network, B is nested in it and owns nothing that is outside the sandbox.
#define _GNU_SOURCE
#include "slot.h"
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

// Nothing that is mounted from now on shows up in the host's mount table, or comes from there.
void private_mounts(void)
{
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) die("can't make mounts private");
}

/*
 * What the kernel counts for each user (inotify instances, pending signals, message queues) it counts for the owner of
 * the namespace too. Owned by root, a sandbox could use up what the host's own root has.
 */
static void own_as(uid_t owner)
{
  // Capabilities stay, so that hosts which let nobody else make user namespaces let this one.
  if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) || setresuid(-1, owner, -1)) die("can't become the owner");
}

void enter_user_namespace(uid_t owners)
{
  // One for each slot: while this process lives, nobody else has its number.
  if (owners) own_as(owners + getpid());
  if (unshare(CLONE_NEWUSER | CLONE_NEWNET)) die("can't make a user namespace");
  char line[32];
  snprintf(line, sizeof line, "map %d", getpid());
  say(line);
  await_go();
  if (setgroups(0, NULL) || setresgid(0, 0, 0) || setresuid(0, 0, 0)) die("can't become root of the mapped ids");
  // Changing ids closed /proc/PID of this process and its children to itself.
  if (prctl(PR_SET_DUMPABLE, 1)) die("can't open /proc to itself");
}

/*
 * The sandbox runs in B. It has capabilities there, and none over A's network. With A's only place for a user namespace
 * taken, nothing inside can make another, whatever a system call filter lets through.
 */
int nested_user_namespace(void)
{
  int made[2];
  char path[64], byte;
  if (pipe2(made, O_CLOEXEC)) die("can't make a pipe");
  pid_t child = fork();
  if (child < 0) die("can't fork");
  if (!child) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (unshare(CLONE_NEWUSER)) die("can't make the nested user namespace");
    if (write(made[1], "", 1) == 1) pause();
    _exit(0);
  }
  close(made[1]);
  if (read(made[0], &byte, 1) != 1) die("the nested user namespace was not made");
  close(made[0]);
  snprintf(path, sizeof path, "/proc/%d/gid_map", child);
  write_file(path, "0 0 65536\n");
  snprintf(path, sizeof path, "/proc/%d/uid_map", child);
  write_file(path, "0 0 65536\n");
  snprintf(path, sizeof path, "/proc/%d/ns/user", child);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) die("can't open the nested user namespace");
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  write_file("/proc/sys/user/max_user_namespaces", "1\n");
  return fd;
}

// What no program in the sandbox can ever have is the rest: bubblewrap needs two more than it leaves to others.
void bound_capabilities(void)
{
  static const int kept[] = {
    CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_NET_BIND_SERVICE,
    CAP_SYS_CHROOT, CAP_SETFCAP, CAP_SYS_ADMIN, CAP_SETPCAP,
  };
  unsigned long long mask = 0;
  for (unsigned i = 0; i < sizeof kept / sizeof *kept; i++) mask |= 1ULL << kept[i];
  for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
    if (!(mask >> capability & 1) && prctl(PR_CAPBSET_DROP, capability)) die("can't give up a capability");
}
