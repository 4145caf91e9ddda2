/** Pictures and animations, read back by another decoder: pages, sizes, delays and pixels. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import t from 'tap';
import { composeRow, hasFonts, type Picture, writeAnimation, writePng } from '../../src/recording/animation.js';

/** A picture in few colours, so that a GIF's palette holds all of them; `shift` tells pictures apart. */
function testPicture(width: number, height: number, shift: number): Picture {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) data.set([((x + shift) % 4) * 80, (y % 3) * 100, shift * 20], (y * width + x) * 3);
  }
  return { width, height, data };
}

const film = (count: number): Picture[] => Array.from({ length: count }, (_, index) => testPicture(20, 14, index));

async function decodePages(
  source: string | Buffer,
): Promise<{ pages: number; pageHeight: number; width: number; delay: number[]; loop: number; data: Buffer }> {
  const meta = await sharp(source, { animated: true }).metadata();
  const data = await sharp(source, { animated: true }).removeAlpha().raw().toBuffer();
  const { pages = 1, pageHeight = meta.height, width, delay = [], loop = -1 } = meta;
  return { pages, pageHeight, width, delay, loop, data };
}

/** The PNG checksum bit by bit, written apart from the encoder's. */
function plainCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** Chunks of a PNG: type and data, checksums checked. */
function pngChunks(bytes: Buffer): { type: string; data: Buffer }[] {
  const chunks = [];
  for (let at = 8; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    const body = bytes.subarray(at + 4, at + 8 + length);
    if (plainCrc(body) !== bytes.readUInt32BE(at + 8 + length)) throw new Error('bad checksum');
    chunks.push({ type: body.subarray(0, 4).toString('latin1'), data: body.subarray(4) });
    at += 12 + length;
  }
  return chunks;
}

t.test('GIF and WebP hold every picture', async (t) => {
  const dir = t.testdir();
  const frames = film(5);
  const expected = Buffer.concat(frames.map((frame) => frame.data));
  for (const ending of ['gif', 'webp']) {
    const path = join(dir, `film.${ending}`);
    await writeAnimation(path, frames, { fps: 12.5 });
    const decoded = await decodePages(path);
    t.same([decoded.pages, decoded.width, decoded.pageHeight, decoded.loop], [5, 20, 14, 0], ending);
    t.same(decoded.delay, [80, 80, 80, 80, 80], ending);
    const worst = decoded.data.reduce((most, value, index) => Math.max(most, Math.abs(value - (expected[index] ?? 0))), 0);
    // GIF has a palette of its own choosing; neighbouring pictures differ by 20, so 8 still tells them apart. WebP is written without loss.
    t.ok(decoded.data.length === expected.length && worst <= (ending === 'gif' ? 8 : 0), `${ending}: pixels are off by at most ${worst}`);
    t.notOk(existsSync(join(dir, `.film.${ending}.part`)));
  }
});

t.test('GIF keeps equal neighbours and the length of the film', async (t) => {
  const path = join(t.testdir(), 'a.GIF');
  const still = testPicture(8, 8, 1);
  await writeAnimation(path, [still, still, still], { fps: 30, loop: 2 });
  const decoded = await decodePages(path);
  t.equal(decoded.pages, 3);
  t.same(decoded.delay, [30, 40, 30], 'hundredths of a second that add up to 100 ms');
  t.equal(decoded.loop, 2);
});

t.test('animated PNG: each picture decodes alone and is exact', async (t) => {
  const path = join(t.testdir(), 'film.png');
  const frames = film(4);
  await writeAnimation(path, frames, { fps: 25, loop: 3 });
  const bytes = readFileSync(path);
  const chunks = pngChunks(bytes);
  t.same(
    chunks.map((chunk) => chunk.type),
    ['IHDR', 'acTL', 'fcTL', 'IDAT', 'fcTL', 'fdAT', 'fcTL', 'fdAT', 'fcTL', 'fdAT', 'IEND'],
  );
  const control = chunks[1]?.data ?? Buffer.alloc(8);
  t.same([control.readUInt32BE(0), control.readUInt32BE(4)], [4, 3], 'pictures and plays');
  const numbered = chunks.filter((chunk) => chunk.type === 'fcTL' || chunk.type === 'fdAT');
  t.same(
    numbered.map((chunk) => chunk.data.readUInt32BE(0)),
    [0, 1, 2, 3, 4, 5, 6],
    'sequence numbers',
  );
  const delays = numbered.filter((chunk) => chunk.data.length === 26).map((chunk) => chunk.data.readUInt16BE(20) / chunk.data.readUInt16BE(22));
  t.same(delays, [0.04, 0.04, 0.04, 0.04]);
  const plain = await decodePages(path);
  t.ok(plain.data.equals(frames[0]?.data ?? Buffer.alloc(0)), 'a plain PNG reader sees the first picture');
  // Every picture's data as a PNG of its own, decoded by libpng.
  const data = chunks.filter((chunk) => chunk.type === 'IDAT' || chunk.type === 'fdAT');
  for (const [index, { type, data: body }] of data.entries()) {
    const single = rebuild(bytes, chunks[0]?.data ?? Buffer.alloc(0), type === 'IDAT' ? body : body.subarray(4));
    t.ok((await decodePages(single)).data.equals(frames[index]?.data ?? Buffer.alloc(0)), `picture ${index}`);
  }
});

/** A single PNG from an animation's signature and header and one picture's data. */
function rebuild(file: Buffer, header: Buffer, data: Buffer): Buffer {
  const chunk = (type: string, body: Buffer): Buffer => {
    const typed = Buffer.concat([Buffer.from(type, 'latin1'), body]);
    const ends = Buffer.alloc(8);
    ends.writeUInt32BE(body.length, 0);
    ends.writeUInt32BE(plainCrc(typed), 4);
    return Buffer.concat([ends.subarray(0, 4), typed, ends.subarray(4)]);
  };
  return Buffer.concat([file.subarray(0, 8), chunk('IHDR', header), chunk('IDAT', data), chunk('IEND', Buffer.alloc(0))]);
}

t.test('a PNG is exact', async (t) => {
  const path = join(t.testdir(), 'deep', 'a.png');
  const picture = testPicture(7, 5, 2);
  await writePng(path, picture);
  const { data, info } = await sharp(path).raw().toBuffer({ resolveWithObject: true });
  t.same([info.width, info.height, info.channels], [7, 5, 3]);
  t.ok(data.equals(picture.data));
});

t.test('a row joins pictures of different sizes', async (t) => {
  const tall = testPicture(6, 8, 0);
  const small = testPicture(3, 4, 1);
  const row = await composeRow([tall, small], { gap: 2 });
  t.same([row.width, row.height], [6 + 2 + 6, 8]);
  const pixel = (picture: Picture, x: number, y: number): number[] => [
    ...picture.data.subarray((y * picture.width + x) * 3, (y * picture.width + x) * 3 + 3),
  ];
  for (let y = 0; y < 8; y++) {
    for (let x = 0; x < 6; x++) {
      t.same(pixel(row, x, y), pixel(tall, x, y));
      t.same(pixel(row, 8 + x, y), pixel(small, x >> 1, y >> 1), 'doubled by repetition');
    }
    t.same(pixel(row, 6, y), pixel(row, 7, y), 'the gap is plain');
  }
  t.equal((await composeRow([tall], { labels: [''] })).height, 8, 'empty labels take no room');
});

t.test('labels are drawn above the pictures and leave them alone', { skip: (await hasFonts()) ? false : 'no fonts on this system' }, async (t) => {
  const picture = testPicture(60, 20, 1);
  const row = await composeRow([picture, picture], { labels: ['real <&> "x"', 'imagined'] });
  const strip = row.height - 20;
  t.ok(strip > 8);
  t.ok(
    row.data.subarray(0, strip * row.width * 3).some((value) => value > 150),
    'something bright is written',
  );
  for (let y = 0; y < 20; y++) {
    const at = (y + strip) * row.width * 3;
    t.same(row.data.subarray(at, at + 180), picture.data.subarray(y * 180, (y + 1) * 180), `row ${y}`);
  }
});

t.test('what cannot be written is refused with a code', async (t) => {
  const dir = t.testdir({ file: '' });
  const picture = testPicture(4, 4, 0);
  const write = (name: string, frames: Picture[], fps = 10) => writeAnimation(join(dir, name), frames, { fps });
  await t.rejects(write('a.gif', []), { code: 'PICTURE_INVALID' });
  await t.rejects(write('a.gif', [picture, testPicture(4, 5, 0)]), { code: 'PICTURE_INVALID' });
  await t.rejects(write('a.gif', [{ ...picture, data: new Uint8Array(47) }]), { code: 'PICTURE_INVALID', expected: '48 bytes for 4 x 4 RGB' });
  await t.rejects(write('a.gif', [{ width: 0, height: 4, data: new Uint8Array(0) }]), { code: 'PICTURE_INVALID' });
  await t.rejects(write('a.gif', [picture], 0), { code: 'PICTURE_INVALID' });
  await t.rejects(write('a.mp4', [picture]), { code: 'ANIMATION_FORMAT', found: '.mp4' });
  await t.rejects(write('file/a.gif', [picture]), { code: 'FILE_WRITE' });
  await t.rejects(writePng(join(dir, 'file', 'a.png'), picture), { code: 'FILE_WRITE' });
  await t.rejects(composeRow([]), { code: 'PICTURE_INVALID' });
});
