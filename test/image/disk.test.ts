/** The disk around a root, made with the real programs from a small tree: equal bytes, sound file systems, everything where it belongs. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { imageFiles } from '../../src/image/build.js';
import { assemble, type DiskInputs, makeData, makeEsp } from '../../src/image/disk.js';
import { layoutOf, MIB, partitionOf } from '../../src/image/layout.js';
import { fileHash } from '../../src/image/rootfs.js';
import { requireTools, runTool } from '../../src/image/tools.js';

const tools = ['sgdisk', 'mkfs.vfat', 'mcopy', 'mke2fs', 'grub-mkimage', 'grub-editenv'];
const grubModules = '/usr/lib/grub/x86_64-efi';

function missing(): string | false {
  try {
    requireTools(process.getuid?.() === 0 ? tools : [...tools, 'fakeroot']);
    return existsSync(grubModules) ? false : 'SKIPPED: no grub-efi-amd64-bin';
  } catch (error) {
    return `SKIPPED: ${(error as Error).message}`;
  }
}

const layout = layoutOf({ identity: 'test', systemMib: 8, dataMib: 16 });

/** A data tree whose entries are made in the given order, at whatever time it is. */
function seedTree(folder: string, names: readonly string[]): void {
  mkdirSync(join(folder, 'premotor', 'config'), { recursive: true });
  for (const name of names) {
    writeFileSync(join(folder, 'premotor', name), name.repeat(9000));
    utimesSync(join(folder, 'premotor', name), Math.random() * 1e9, Math.random() * 1e9);
  }
  symlinkSync('../a', join(folder, 'premotor', 'config', 'current'));
}

async function makeDisk(folder: string, names: readonly string[]): Promise<string> {
  const workDir = join(folder, 'work');
  mkdirSync(workDir, { recursive: true });
  seedTree(join(folder, 'seed'), names);
  const grubTar = join(folder, 'grub.tar');
  execFileSync('tar', ['-C', '/usr/lib/grub', '-cf', grubTar, 'x86_64-efi']);
  const root = join(folder, 'root.squashfs');
  writeFileSync(root, Buffer.alloc(3 * MIB + 17, 'r'));
  const inputs: DiskInputs = { arch: 'amd64', files: imageFiles(), epoch: 1_760_000_000, identity: 'test', workDir };
  const esp = await makeEsp(inputs, grubTar);
  const data = await makeData(inputs, join(folder, 'seed'), partitionOf(layout, 'data').sizeBytes);
  const out = join(folder, 'disk.img');
  let last = 0;
  await assemble(inputs, layout, { esp, root, data }, out, (done, total) => {
    last = done / total;
  });
  t.equal(last, 1, 'progress ends at the end');
  return out;
}

t.test('a disk', { skip: missing() }, async (t) => {
  const folder = t.testdir({ one: {}, two: {} });
  const disk = await makeDisk(join(folder, 'one'), ['a', 'b', 'c', 'd']);
  const again = await makeDisk(join(folder, 'two'), ['d', 'b', 'a', 'c']);
  t.equal(await fileHash(disk), await fileHash(again), 'equal inputs give equal bytes, whatever the order and the time of their making');

  const part = (name: 'esp' | 'system-a' | 'system-b' | 'data'): string => {
    const { startBytes, sizeBytes } = partitionOf(layout, name);
    const file = join(folder, `${name}.part`);
    writeFileSync(file, readFileSync(disk).subarray(startBytes, startBytes + sizeBytes));
    return file;
  };
  t.match(await runTool('sgdisk', ['--verify', disk]), /No problems found/);
  t.match(await runTool('sgdisk', ['--print', disk]), /system-a[\s\S]*system-b[\s\S]*data/);
  const root = readFileSync(part('system-a'));
  t.ok(root.subarray(0, 3 * MIB + 17).every((byte) => byte === 'r'.charCodeAt(0)) && root[3 * MIB + 17] === 0, 'the root is in slot A');
  t.ok(
    readFileSync(part('system-b')).every((byte) => byte === 0),
    'slot B is empty',
  );

  const data = part('data');
  await runTool('e2fsck', ['-f', '-n', data]);
  t.match(await runTool('debugfs', ['-R', 'stat /premotor/a', data]), /User: +0 +Group: +0 [\s\S]*Size: 9000/, 'files belong to root');
  t.match(await runTool('debugfs', ['-R', 'stat /premotor/config/current', data]), /Fast link dest: "..\/a"/);

  const esp = part('esp');
  const list = await runTool('mdir', ['-/', '-b', '-i', esp, '::']);
  for (const name of ['EFI/BOOT/BOOTX64.EFI', 'EFI/premotor/grub.cfg', 'EFI/premotor/grubenv']) t.match(list, name);
  const memory = await runTool('mtype', ['-i', esp, '::EFI/premotor/grubenv']);
  t.match(memory, /ORDER=A B\nA_OK=1\nA_TRY=0\nB_OK=0\nB_TRY=0\n/, 'slot A first, slot B not before an update');
  t.notMatch(await runTool('mtype', ['-i', esp, '::EFI/premotor/grub.cfg']), /@[A-Z]+@/, 'nothing is left to fill in');
});
