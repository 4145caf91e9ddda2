/**
 * What `npm run test:image` shows, as a table: a name, what the image must have, and what happens to a guest. Each scenario gets a context with
 * images and a `check`, throws when something is not as it should be, and leaves no guest behind. Scenarios of updates are in files of their own
 * beside this one (update-*.mjs), in the same form; the runner loads them by name.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { Disk, Guest } from './guest.mjs';

/** Runs `work` with a guest and always ends it. */
export async function withGuest(disk, context, work, options) {
  const guest = await Guest.start(disk, context.key, options);
  try {
    return await work(guest);
  } finally {
    await guest.powerCut();
  }
}

const slotOf = (guest) => guest.output(`sed -n 's/.*rauc.slot=\\([AB]\\).*/\\1/p' /proc/cmdline`);
const grubenv = '/boot/efi/EFI/premotor/grubenv';

async function systemIsWhatItShouldBe({ disk, check, ...context }) {
  await withGuest(disk('boot'), context, async (guest) => {
    await guest.reachable();
    check.equal(await slotOf(guest), 'A', 'slot A runs');
    check.match(
      await guest.output('findmnt -n -o FSTYPE /; findmnt -n -o FSTYPE /run/overlay/slot'),
      /^overlay\nsquashfs$/,
      'a squashfs below an overlay',
    );
    check.equal(await guest.output('touch /run/overlay/slot/x 2>/dev/null; echo $?'), '1', 'the slot cannot be written');
    check.match(await guest.output('cat /run/premotor-image/data'), /^(clean|repaired)$/, 'the data partition is there');
    const mounts = await guest.output('findmnt -n -o SOURCE,TARGET -t ext4 | sort');
    for (const target of ['/data', '/var/lib/premotor', '/var/log/journal', '/var/lib/systemd'])
      check.match(mounts, new RegExp(` ${target}(\n|$)`), target);
    check.equal(await guest.output('hostname'), 'premotor-test0001', 'named after its serial number');
    const bytes = Number(await guest.output('df --output=size -B1 /data | tail -n 1'));
    check.ok(bytes > 4 * 2 ** 30, `the data partition has grown to ${(bytes / 2 ** 30).toFixed(1)} GiB`);
    const failed = await guest.output(
      'systemctl is-system-running --wait >/dev/null; systemctl --failed --plain --no-legend | cut -d" " -f1 | grep -v "^premotor.service$" || true',
    );
    check.equal(failed, '', 'no unit failed');
  });
}

async function nobodyGetsIn({ disk, check, ...context }) {
  await withGuest(disk('doors'), context, async (guest) => {
    await guest.reachable();
    check.match(await guest.output('passwd --status root'), /^root L /, 'root has no password');
    check.equal(await guest.output(`awk -F: '$2 !~ /^[!*]/' /etc/shadow | wc -l`), '0', 'nobody has a password');
    const ways = await guest.output('sshd -T | grep -E "^(passwordauthentication|kbdinteractiveauthentication) " | cut -d" " -f2');
    check.equal(ways, 'no\nno', 'keys only');
    check.equal(await guest.output('pgrep -c getty || true'), '0', 'no login on any terminal');
    const rules = await guest.output('nft list chain inet premotor input');
    check.match(rules, /policy drop/, 'what was not asked for is dropped');
    const open = await guest.output(`ss -H -t -l -n | awk '{print $4}' | grep -v '127.0.0' | grep -v '\\[::1\\]' | sed 's/.*://' | sort -u`);
    check.equal(open, '22', 'ssh alone listens for others');
  });
}

async function stateLasts({ disk, check, ...context }) {
  const one = disk('lasts');
  const before = await withGuest(one, context, async (guest) => {
    await guest.reachable();
    await guest.output('echo kept >/data/premotor/queue/x; echo lost >/etc/x; sync');
    const facts = await guest.output('cat /etc/machine-id /data/ssh/ssh_host_ed25519_key.pub');
    await guest.powerCut();
    return facts;
  });
  await withGuest(one, context, async (guest) => {
    await guest.reachable();
    check.equal(await guest.output('cat /etc/machine-id /data/ssh/ssh_host_ed25519_key.pub'), before, 'machine id and host key stay');
    check.equal(await guest.output('cat /var/lib/premotor/queue/x; ls /etc/x 2>/dev/null || true'), 'kept', 'data stays, the root does not');
    check.ok(Number(await guest.output('journalctl --list-boots | wc -l')) >= 2, 'the journal holds both starts');
  });
}

/** A slot whose system never gets so far as to say that it is well is tried three times; then the other one runs. */
async function fallsBack({ disk, check, ...context }) {
  const one = disk('falls');
  await withGuest(one, context, async (guest) => {
    await guest.reachable();
    await guest.output('dd if=/dev/disk/by-partlabel/system-a of=/dev/disk/by-partlabel/system-b bs=4M conv=fsync', { timeout_ms: 300_000 });
    await guest.output(`grub-editenv ${grubenv} set "ORDER=B A" B_OK=1 B_TRY=0 A_OK=1 A_TRY=0; sync`);
    for (const attempt of [1, 2, 3]) {
      const from = guest.lines.length;
      await guest.reset();
      check.match(await guest.line(/premotor: starting slot/, { from }), new RegExp(`slot B \\(try ${attempt}\\)`), `try ${attempt}`);
    }
    const from = guest.lines.length;
    await guest.reset();
    check.match(await guest.line(/premotor: starting slot/, { from }), /slot A/, 'then the other slot');
    await guest.reachable();
    check.equal(await slotOf(guest), 'A', 'and it runs');
  });
}

/** The UUID of a partition's file system on a disk that no guest uses, or ''. */
function fileSystemOf(disk, name) {
  const table = execFileSync('partx', ['--show', '--noheadings', '--output', 'START,NAME', disk.file], { encoding: 'utf8' });
  const [start] = table.split('\n').flatMap((line) => (line.trim().endsWith(` ${name}`) ? [Number.parseInt(line, 10)] : []));
  const { stdout } = spawnSync('blkid', ['-p', '-O', String(start * 512), '-s', 'UUID', '-o', 'value', disk.file], { encoding: 'utf8' });
  return stdout.trim();
}

/**
 * A data partition whose beginning is gone: repaired out of what ext4 keeps twice, with its files. With much more of it gone it is repaired or left
 * as it is, and never made anew: the robot starts and says so.
 */
async function dataIsNeverFormatted({ disk, check, ...context }) {
  const one = disk('damaged');
  const data = '/dev/disk/by-partlabel/data';
  const told = /premotor: the data partition (is damaged|cannot be mounted)|premotor: premotor-\S+ slot A data (damaged|repaired)/;
  const zero = (guest, size) =>
    guest.output(`sync; dd if=/dev/zero of=${data} bs=${size} count=1 conv=notrunc,fsync; blkid -p -s UUID -o value ${data} || true`);
  let uuid;
  await withGuest(one, context, async (guest) => {
    await guest.reachable();
    await guest.output('echo kept >/data/premotor/queue/x');
    uuid = await guest.output(`blkid -s UUID -o value ${data}`);
    check.equal(await zero(guest, '64K'), '', 'the superblock is gone');
  });
  await withGuest(one, context, async (guest) => {
    check.match(await guest.line(told), /data repaired/, 'repaired, and told');
    await guest.reachable();
    check.equal(await guest.output('cat /var/lib/premotor/queue/x'), 'kept', 'with its files');
    await zero(guest, '8M');
  });
  await withGuest(one, context, async (guest) => {
    const line = await guest.line(told);
    check.match(line, /damaged|repaired|cannot/, `much more is gone: ${line.trim()}`);
  });
  const found = fileSystemOf(one, 'data');
  check.ok(['', uuid].includes(found), `the same file system, or none: ${found}`);
}

async function hangIsReset({ disk, check, ...context }) {
  await withGuest(
    disk('hang'),
    context,
    async (guest) => {
      await guest.reachable();
      check.match(
        await guest.output('wdctl -n -o DEVICE 2>/dev/null; cat /sys/class/watchdog/watchdog0/identity'),
        /i6300ESB|iTCO/,
        'a watchdog is there',
      );
      const from = guest.lines.length;
      // A kernel that stops all processors, as a driver with a bug would: only the board's watchdog is left.
      await guest.output(
        'echo 0 >/proc/sys/kernel/panic; echo 1 >/proc/sys/kernel/sysrq; nohup sh -c "sleep 1; echo c >/proc/sysrq-trigger" >/dev/null 2>&1 &',
      );
      await guest.line(/premotor: starting slot/, { from });
      check.ok(true, 'the watchdog started it again');
    },
    { watchdog: 'reset' },
  );
}

export const scenarios = [
  { name: 'an image boots headless from a read-only slot, with its data beside it', arch: 'amd64', needs: [], run: systemIsWhatItShouldBe },
  { name: 'nobody gets in without a key', arch: 'amd64', needs: [], run: nobodyGetsIn },
  { name: 'data, machine id and journal survive a power cut', arch: 'amd64', needs: [], run: stateLasts },
  { name: 'a slot that is never well falls back after three tries', arch: 'amd64', needs: [], run: fallsBack },
  { name: 'a damaged data partition is told and never formatted', arch: 'amd64', needs: [], run: dataIsNeverFormatted },
  { name: 'a system that hangs is reset by the watchdog', arch: 'amd64', needs: [], run: hangIsReset },
];

export { Disk, Guest };
