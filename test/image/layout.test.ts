import t from 'tap';
import { checkSlot, derivedUuid, derivedVolumeId, layoutOf, MIB, partitionOf, sgdiskArgs } from '../../src/image/layout.js';

const inputs = { identity: 'a', systemMib: 512, dataMib: 200 };

t.test('partitions follow each other, aligned, within the disk', async (t) => {
  const layout = layoutOf(inputs);
  t.same(
    layout.partitions.map(({ name, number }) => `${number} ${name}`),
    ['1 esp', '2 system-a', '3 system-b', '4 data'],
  );
  let next = MIB;
  for (const { startBytes, sizeBytes } of layout.partitions) {
    t.equal(startBytes, next, 'no gap and no overlap');
    t.equal(startBytes % MIB, 0, 'aligned');
    next = startBytes + sizeBytes;
  }
  t.ok(layout.sizeBytes - next >= 33 * 512, 'the second table has room');
  t.equal(partitionOf(layout, 'system-a').sizeBytes, partitionOf(layout, 'system-b').sizeBytes, 'a slot is as large as the other');
  t.equal(partitionOf(layout, 'data').number, 4, 'data is last: it can grow');
});

t.test('ids come from the inputs alone', async (t) => {
  t.same(layoutOf(inputs), layoutOf({ ...inputs }));
  const other = layoutOf({ ...inputs, identity: 'b' });
  const ids = [layoutOf(inputs), other].flatMap(({ diskUuid, partitions }) => [diskUuid, ...partitions.map(({ uuid }) => uuid)]);
  t.equal(new Set(ids).size, ids.length, 'every id differs');
  for (const id of ids) t.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  t.match(derivedVolumeId('a'), /^[0-9a-f]{8}$/);
  t.not(derivedUuid('a', 'x'), derivedUuid('a', 'y'));
});

t.test('sgdisk is told every partition in sectors', async (t) => {
  const args = sgdiskArgs(layoutOf(inputs), 'x.img');
  t.ok(args.includes('--new=1:2048:133119'));
  t.ok(args.includes('--typecode=1:EF00'));
  t.ok(args.includes('--change-name=4:data'));
  t.equal(args.at(-1), 'x.img');
});

t.test('a system that does not fit is refused', async (t) => {
  checkSlot(512 * MIB, 512);
  t.throws(() => checkSlot(512 * MIB + 1, 512), { code: 'IMAGE_SYSTEM_TOO_LARGE' });
});
