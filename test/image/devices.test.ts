import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { SystemFiles } from '../../src/cli/probes.js';
import { checkDisk, familyOf, type SystemView } from '../../src/image/devices.js';

const GIB = 1 << 30;

/** A machine that runs from sda, with a free stick sdb, an encrypted sdc and an empty card reader. */
const machine: Readonly<Record<string, string>> = {
  '/sys/class/block/sda/dev': '8:0',
  '/sys/class/block/sda/size': String((64 * GIB) / 512),
  '/sys/class/block/sda/sda1/partition': '1',
  '/sys/class/block/sda1/partition': '1',
  '/sys/class/block/sda1/dev': '8:1',
  '/sys/class/block/sdb/dev': '8:16',
  '/sys/class/block/sdb/size': String((8 * GIB) / 512),
  '/sys/class/block/sdb/removable': '1',
  '/sys/class/block/sdb/ro': '0',
  '/sys/class/block/sdb/device/vendor': 'Acme    ',
  '/sys/class/block/sdb/device/model': 'Stick',
  '/sys/class/block/sdb/sdb1/partition': '1',
  '/sys/class/block/sdb1/partition': '1',
  '/sys/class/block/sdb1/dev': '8:17',
  '/sys/class/block/sdc/dev': '8:32',
  '/sys/class/block/sdc/size': String((8 * GIB) / 512),
  '/sys/class/block/sdc/holders/dm-0/x': '',
  '/sys/class/block/dm-0/dev': '254:0',
  '/sys/class/block/dm-0/dm/name': 'vault',
  '/sys/class/block/sdd/dev': '8:48',
  '/sys/class/block/sdd/size': '0',
  '/proc/self/mountinfo': '22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:5 / /proc rw - proc proc rw',
  '/proc/swaps': 'Filename Type Size Used Priority',
};

function view(t: Test, changes: Readonly<Record<string, string>> = {}): SystemView {
  const root = t.testdir({});
  for (const [path, text] of Object.entries({ ...machine, ...changes })) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return new SystemFiles(root);
}

t.test('a free disk is described', async (t) => {
  t.same(checkDisk(view(t), '/dev/sdb', 4 * GIB), { name: 'sdb', path: '/dev/sdb', sizeBytes: 8 * GIB, model: 'Acme Stick', isRemovable: true });
});

t.test('what must not be written is refused, each with its own code', async (t) => {
  const mounts = machine['/proc/self/mountinfo'];
  const also = (line: string): Readonly<Record<string, string>> => ({ '/proc/self/mountinfo': `${mounts}\n${line}` });
  const cases: readonly (readonly [string, string, string, Readonly<Record<string, string>>?])[] = [
    ['the running system', '/dev/sda', 'FLASH_SYSTEM_DISK'],
    ['a partition', '/dev/sdb1', 'FLASH_PARTITION'],
    ['a disk that is not there', '/dev/sdz', 'FLASH_NOT_A_DISK'],
    ['a file', 'disk.img', 'FLASH_NOT_A_DISK'],
    ['a path that climbs', '/dev/../sda', 'FLASH_NOT_A_DISK'],
    ['an empty reader', '/dev/sdd', 'FLASH_TOO_SMALL'],
    ['a mounted partition', '/dev/sdb', 'FLASH_MOUNTED', also('30 22 8:17 / /media/my\\040stick rw - vfat /dev/sdb1 rw')],
    ['a disk mounted whole', '/dev/sdb', 'FLASH_MOUNTED', also('30 22 8:16 / /mnt rw - ext4 /dev/sdb rw')],
    ['one that shows only by name', '/dev/sdb', 'FLASH_MOUNTED', also('30 22 0:44 / /mnt rw - btrfs /dev/sdb1 rw')],
    ['something mounted behind encryption', '/dev/sdc', 'FLASH_MOUNTED', also('30 22 254:0 / /mnt/vault rw - ext4 /dev/mapper/vault rw')],
    ['swap behind encryption', '/dev/sdc', 'FLASH_SYSTEM_DISK', { '/proc/swaps': 'Filename\n/dev/mapper/vault partition 1 0 -2' }],
    ['the data partition of a robot', '/dev/sdb', 'FLASH_SYSTEM_DISK', also('30 22 8:17 / /data rw - ext4 /dev/sdb1 rw')],
    ['a write-protected card', '/dev/sdb', 'FLASH_READ_ONLY', { '/sys/class/block/sdb/ro': '1' }],
  ];
  for (const [name, path, code, changes] of cases) t.throws(() => checkDisk(view(t, changes), path, 4 * GIB), { code }, name);
  t.throws(() => checkDisk(view(t), '/dev/sdb', 8 * GIB + 1), { code: 'FLASH_TOO_SMALL' }, 'one byte too small');
  t.throws(
    () => checkDisk(view(t, also('30 22 8:17 / /media/my\\040stick rw - vfat /dev/sdb1 rw')), '/dev/sdb', 1),
    { code: 'FLASH_MOUNTED', found: '/dev/sdb1 mounted at /media/my stick' },
    'the mount point is told as people write it',
  );
});

t.test('a valid disk that becomes mounted becomes refused', async (t) => {
  checkDisk(view(t), '/dev/sdb', GIB);
  const mounted = `${machine['/proc/self/mountinfo']}\n30 22 8:17 / /mnt rw - vfat /dev/sdb1 rw`;
  t.throws(() => checkDisk(view(t, { '/proc/self/mountinfo': mounted }), '/dev/sdb', GIB), { code: 'FLASH_MOUNTED' });
});

t.test('a family is the disk, its partitions and what is stacked on them', async (t) => {
  t.same(familyOf(view(t), 'sdb'), ['sdb', 'sdb1']);
  t.same(familyOf(view(t), 'sdc'), ['sdc', 'dm-0']);
});
