import { readFileSync } from 'node:fs';
import t from 'tap';
import { baseHash } from '../../src/image/base.js';
import { imageFiles } from '../../src/image/build.js';
import { ARCHES } from '../../src/image/layout.js';
import { checkRecord, differences, parsePackages, readPackages, readRecord } from '../../src/image/packages.js';

t.test('the list names the kernel and the boot loader of each architecture', async (t) => {
  t.same(parsePackages('# remark\n\nKERNEL\n udev \n', 'arm64'), ['linux-image-arm64', 'udev', 'grub-efi-arm64-bin']);
  for (const arch of ARCHES) {
    const names = readPackages(imageFiles(), arch);
    t.equal(new Set(names).size, names.length, 'nothing twice');
    t.ok(names.includes(`linux-image-${arch}`));
  }
});

t.test('the recorded versions hold what is wanted', async (t) => {
  for (const arch of ARCHES) {
    const record = readRecord(imageFiles(), arch);
    if (record === undefined) {
      t.fail(`no record for ${arch}`);
      continue;
    }
    const recorded = new Set(record.map((line) => line.slice(0, line.indexOf('='))));
    t.same(
      readPackages(imageFiles(), arch).filter((name) => !recorded.has(name)),
      [],
      `${arch}: every wanted package has a version`,
    );
    t.same(
      record.filter((line) => !/^[a-z0-9][a-z0-9+.-]+=\S+$/.test(line)),
      [],
      'every line is name=version',
    );
  }
});

t.test('what changed is told, and refused', async (t) => {
  const before = ['a=1', 'b=2', 'c=3'];
  t.same(differences(before, before), []);
  t.same(differences(before, ['a=1', 'b=2.1', 'd=4']), ['b 2 -> 2.1', '- c 3', '+ d 4']);
  checkRecord(before, before, 'f');
  t.throws(() => checkRecord(before, ['a=1'], 'f'), { code: 'IMAGE_PACKAGES_CHANGED', found: '- b 2; - c 3' });
  const many = Array.from({ length: 20 }, (_, index) => `p${index}=1`);
  t.throws(() => checkRecord([], many, 'f'), { message: /and 14 more/ });
});

t.test('another list or version is another tree', async (t) => {
  const hash = baseHash('amd64', ['a'], ['a=1']);
  t.equal(baseHash('amd64', ['a'], ['a=1']), hash);
  for (const other of [baseHash('arm64', ['a'], ['a=1']), baseHash('amd64', ['b'], ['a=1']), baseHash('amd64', ['a'], ['a=2'])]) t.not(other, hash);
});

t.test('no package repository is named', async (t) => {
  t.notMatch(readFileSync(`${imageFiles()}/packages.txt`, 'utf8'), /https?:/);
});
