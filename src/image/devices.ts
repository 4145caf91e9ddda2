/**
 * Which disk a path means and whether it may be overwritten, judged from what the kernel shows (sysfs, mount table, swaps). It only reads; a test
 * gives a folder of its own as the system. Owned by flashing.
 */
import { PremotorError } from '../errors.js';

/** A read-only view of the running system, such as the command line's SystemFiles. */
export interface SystemView {
  text(path: string): string | undefined;
  list(path: string): readonly string[];
  exists(path: string): boolean;
}

export interface Disk {
  /** The kernel's name, such as sdb. */
  readonly name: string;
  readonly path: string;
  readonly sizeBytes: number;
  readonly model: string;
  readonly isRemovable: boolean;
}

const SECTOR_BYTES = 512;
const blockDir = '/sys/class/block';
/** Where the running system lives: what is mounted there makes a disk a system disk. */
const systemMounts = new Set(['/', '/boot', '/boot/efi', '/usr', '/var', '/home', '/data', '/run/overlay/slot']);

interface Use {
  readonly device: string;
  readonly where: string;
}

function refuse(code: string, path: string, expected: string, found: string, advice: string): PremotorError {
  return new PremotorError(code, `${path} is not written: expected ${expected}, found ${found}. ${advice}`, { file: path, expected, found });
}

/** The disk itself, its partitions, and everything stacked on them (LVM, RAID, encryption). */
export function familyOf(view: SystemView, name: string): readonly string[] {
  const found = new Set<string>();
  const visit = (device: string): void => {
    if (found.has(device)) return;
    found.add(device);
    for (const holder of view.list(`${blockDir}/${device}/holders`)) visit(holder);
    for (const child of view.list(`${blockDir}/${device}`)) if (view.exists(`${blockDir}/${device}/${child}/partition`)) visit(child);
  };
  visit(name);
  return [...found];
}

/** What the kernel mounts or swaps to, by device number and by name (some file systems show only one of them). */
function usesOf(view: SystemView, family: readonly string[]): readonly Use[] {
  const numbers = new Map(family.map((name): [string, string] => [view.text(`${blockDir}/${name}/dev`) ?? '', name]));
  const paths = new Map(
    family.flatMap((name): [string, string][] => {
      const mapped = view.text(`${blockDir}/${name}/dm/name`);
      return [[`/dev/${name}`, name], ...(mapped === undefined ? [] : [[`/dev/mapper/${mapped}`, name] as [string, string]])];
    }),
  );
  const mounts = (view.text('/proc/self/mountinfo') ?? '').split('\n').flatMap((line): Use[] => {
    const [front = '', back = ''] = line.split(' - ');
    const [, , number = '', , where = ''] = front.split(' ');
    const device = numbers.get(number) ?? paths.get(back.split(' ')[1] ?? '');
    return device === undefined ? [] : [{ device, where: unescaped(where) }];
  });
  const swaps = (view.text('/proc/swaps') ?? '').split('\n').flatMap((line): Use[] => {
    const device = paths.get(line.split(/\s+/)[0] ?? '');
    return device === undefined ? [] : [{ device, where: 'swap' }];
  });
  return [...mounts, ...swaps];
}

/** The mount table writes white space as octal numbers. */
const unescaped = (text: string): string => text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));

/**
 * The disk behind a device path, after every check that needs no confirmation. Errors: FLASH_NOT_A_DISK, FLASH_PARTITION, FLASH_READ_ONLY,
 * FLASH_SYSTEM_DISK, FLASH_MOUNTED, FLASH_TOO_SMALL.
 */
export function checkDisk(view: SystemView, path: string, imageBytes: number): Disk {
  const name = /^\/dev\/([\w!-]+)$/.exec(path)?.[1];
  if (name === undefined || !view.exists(`${blockDir}/${name}`))
    throw refuse('FLASH_NOT_A_DISK', path, 'a disk of this machine, such as /dev/sdb', 'no block device', 'lsblk lists them.');
  if (view.exists(`${blockDir}/${name}/partition`))
    throw refuse('FLASH_PARTITION', path, 'a whole disk', 'one of its partitions', `Give the disk: the image has a partition table of its own.`);
  const uses = usesOf(view, familyOf(view, name));
  const system = uses.find(({ where }) => systemMounts.has(where) || where === 'swap');
  if (system !== undefined) {
    const found = `/dev/${system.device} in use as ${system.where}`;
    throw refuse('FLASH_SYSTEM_DISK', path, 'a disk that this machine does not run from', found, 'Nothing overrides this: take another disk.');
  }
  const mounted = uses[0];
  if (mounted !== undefined) {
    const found = `/dev/${mounted.device} mounted at ${mounted.where}`;
    throw refuse('FLASH_MOUNTED', path, 'a disk that nothing uses', found, `Unmount it first: umount ${JSON.stringify(mounted.where)}.`);
  }
  if (view.text(`${blockDir}/${name}/ro`) === '1')
    throw refuse('FLASH_READ_ONLY', path, 'a disk that can be written', 'a read-only one', 'Look for its write-protect switch.');
  const sizeBytes = Number(view.text(`${blockDir}/${name}/size`) ?? 0) * SECTOR_BYTES;
  if (sizeBytes < imageBytes)
    throw refuse('FLASH_TOO_SMALL', path, `at least ${imageBytes} bytes`, sizeBytes === 0 ? 'no medium' : String(sizeBytes), 'Take a larger disk.');
  const vendor = view.text(`${blockDir}/${name}/device/vendor`) ?? '';
  const model = view.text(`${blockDir}/${name}/device/model`) ?? view.text(`${blockDir}/${name}/device/name`) ?? '';
  const label = `${vendor} ${model}`.trim();
  return { name, path, sizeBytes, model: label === '' ? 'unknown model' : label, isRemovable: view.text(`${blockDir}/${name}/removable`) === '1' };
}
