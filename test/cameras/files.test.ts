/** Pictures from files: single ones, folders in the order of their names, animations, and what is refused with which words. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import t from 'tap';
import { openPictureFiles } from '../../src/cameras/files.js';
import { writeAnimation, writePng } from '../../src/recording/animation.js';
import { pngChunk } from '../../src/recording/apng.js';
import { failureOf, picture } from './rig.js';

const firstValues = async (path: string): Promise<number[]> => {
  const list = await openPictureFiles(path);
  const pictures = await Promise.all(Array.from({ length: list.count }, (_, index) => list.picture(index)));
  t.ok(
    pictures.every(({ width, height, data }) => width === list.width && height === list.height && data.length === width * height * 3),
    'every picture is RGB of one size',
  );
  return pictures.map(({ data }) => data[0] ?? -1);
};

t.test('one picture', async (t) => {
  const folder = t.testdir({});
  await writePng(join(folder, 'one.png'), picture(4, 2, 77));
  t.same(await firstValues(join(folder, 'one.png')), [77]);
  const grey = await sharp(Buffer.alloc(8, 90), { raw: { width: 4, height: 2, channels: 1 } })
    .toColourspace('b-w')
    .png()
    .toBuffer();
  writeFileSync(join(folder, 'grey.png'), grey);
  t.same(await firstValues(join(folder, 'grey.png')), [90], 'grey is made RGB');
  const clear = await sharp(Buffer.alloc(32, 60), { raw: { width: 4, height: 2, channels: 4 } })
    .png()
    .toBuffer();
  writeFileSync(join(folder, 'clear.png'), clear);
  t.same(await firstValues(join(folder, 'clear.png')), [60], 'transparency is removed');
});

t.test('a folder in the order of names, numbers as numbers', async (t) => {
  const folder = t.testdir({ 'notes.txt': 'not a picture' });
  for (const [name, value] of [
    ['frame10.png', 10],
    ['frame2.png', 2],
    ['frame1.png', 1],
  ] as const)
    await writePng(join(folder, name), picture(4, 2, value));
  mkdirSync(join(folder, 'more'));
  t.same(await firstValues(folder), [1, 2, 10]);
});

t.test('animations: GIF, WebP and PNG', async (t) => {
  const folder = t.testdir({});
  const pages = [20, 120, 220].map((value) => picture(6, 4, value));
  for (const [name, tolerance] of [
    ['a.gif', 4],
    ['a.webp', 0],
    ['a.png', 0],
  ] as const) {
    const path = join(folder, name);
    await writeAnimation(path, pages, { fps: 10 });
    const list = await openPictureFiles(path);
    t.same([list.count, list.width, list.height], [3, 6, 4], name);
    const found = await firstValues(path);
    t.ok(
      found.every((value, index) => Math.abs(value - [20, 120, 220][index]!) <= tolerance),
      `${name}: ${found}`,
    );
  }
});

t.test('an animated PNG whose pages are parts of the picture is refused', async (t) => {
  const folder = t.testdir({});
  const still = await sharp(Buffer.from(picture(4, 2, 5).data), { raw: { width: 4, height: 2, channels: 3 } })
    .png()
    .toBuffer();
  const control = Buffer.alloc(26);
  control.writeUInt32BE(2, 4);
  control.writeUInt32BE(2, 8);
  // Behind the header, which is 25 bytes after 8 of signature.
  const moving = Buffer.concat([still.subarray(0, 33), pngChunk('acTL', Buffer.alloc(8, 1)), pngChunk('fcTL', control), still.subarray(33)]);
  writeFileSync(join(folder, 'part.png'), moving);
  t.match(await failureOf(() => openPictureFiles(join(folder, 'part.png'))), { code: 'CAMERA_FILE', message: /smaller than the picture.*ffmpeg/ });
});

t.test('what is refused', async (t) => {
  const folder = t.testdir({ 'film.mp4': 'x', 'broken.png': 'no picture', empty: {}, mixed: {} });
  const refused = async (name: string) => failureOf(() => openPictureFiles(join(folder, name)));
  t.match(await refused('film.mp4'), { code: 'CAMERA_FILE', message: /ffmpeg -i .*film\.mp4/, found: 'a video (.mp4)' });
  t.match(await refused('broken.png'), { code: 'CAMERA_FILE', file: join(folder, 'broken.png') });
  t.match(await refused('nowhere'), { code: 'CAMERA_FILE', message: /Check the path/ });
  t.match(await refused('empty'), { code: 'CAMERA_FILE', found: 'no picture' });
  await writePng(join(folder, 'mixed', '1.png'), picture(4, 2, 1));
  writeFileSync(join(folder, 'mixed', '2.png'), 'cut off');
  const list = await openPictureFiles(join(folder, 'mixed'));
  await list.picture(0);
  t.match(
    await failureOf(() => list.picture(1)),
    { code: 'CAMERA_FILE', file: join(folder, 'mixed', '2.png') },
    'valid becoming invalid: named when it is its turn',
  );
});
