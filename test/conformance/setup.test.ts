import { describe, expect, test } from 'vitest'
import { drivers } from './drivers.ts'
import { openSuite, run } from './suite.ts'

const PACKAGE = `set -eu
mkdir -p p/DEBIAN p/usr/bin p/var/lib/mine
printf 'Package: mine\\nVersion: 1\\nArchitecture: all\\nMaintainer: me <me@localhost>\\nDescription: mine\\n' > p/DEBIAN/control
printf '#!/bin/sh\\nset -e\\nadduser --system --group --quiet mine 2>/dev/null || useradd --system mine\\nchown mine /var/lib/mine\\n' > p/DEBIAN/postinst
printf '#!/bin/sh\\necho it runs\\n' > p/usr/bin/mine
chmod 755 p/DEBIAN/postinst p/usr/bin/mine
dpkg-deb --build --root-owner-group p mine.deb
apt-get install -y ./mine.deb
mine
stat -c '%U' /var/lib/mine
apt-get purge -y mine`

describe.each(Object.entries(drivers))("%s: what a snapshot's setup does", { timeout: 60_000 }, (_, underTest) => {
  const suite = openSuite(underTest)

  test('apt-get installs a package, with its user and its files, and removes it', async () => {
    const sandbox = await suite.start()
    const { stdout, stderr, exit } = await run(sandbox, PACKAGE)
    expect(exit, stderr).toEqual({ exitCode: 0 })
    expect(stdout).toContain('\nit runs\nmine\n')
    expect(stderr).not.toContain('sandbox')
  })

  test('files change hands, programs change users, and what is installed stays executable', async () => {
    const sandbox = await suite.start()
    const script = `set -eu
      touch f; chown 33:44 f; chmod 6755 f; stat -c '%u %g %a' f
      su nobody -s /bin/sh -c 'id -u; cat /etc/shadow 2>&1 | tail -c 18; touch /workspace/x 2>&1 | tail -c 18'
      cp /bin/true /usr/local/bin/t && t
      mv /usr/bin/env /usr/bin/env2 && env2 true
      rm -rf /usr/share/doc && mkdir /usr/share/doc && ls /usr/share/doc | wc -l
      ln f g && mkfifo p && truncate -s 1G s && du -k s | cut -f1
      chroot / true`
    const { stdout, stderr, exit } = await run(sandbox, script)
    expect(exit, stderr).toEqual({ exitCode: 0 })
    expect(stdout).toBe('33 44 6755\n65534\nPermission denied\nPermission denied\n0\n0\n')
  })

  test('a set-user-id program gains nothing', async () => {
    const sandbox = await suite.start()
    const script = `cp /usr/bin/id /tmp/id; chmod 4755 /tmp/id; su nobody -s /bin/sh -c '/tmp/id -u'`
    expect((await run(sandbox, script)).stdout).toBe('65534\n')
  })
})
