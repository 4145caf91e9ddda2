/** Firmware files: what is made is read back, and every damaged byte that matters is refused. */
import t from 'tap';
// @ts-expect-error a build script without types
import { packImage, versionWord } from '../../firmware-bridge/board/build.mjs';
import { crc32, lettersOf, packFirmware, parseFirmware, slotName, versionText, wordOf } from '../../src/robot/firmware-image.js';

const body = Uint8Array.from({ length: 101 }, (_, index) => (index * 31) & 0xff);
const a = packFirmware({ body, board: 'TEST', versionWord: 0x01020003, slot: 0, address: 0x10000 });
const b = packFirmware({ body, board: 'TEST', versionWord: 0x01020003, slot: 1, address: 0x30000 });

t.test('what is packed is parsed', async (t) => {
  const images = parseFirmware('two', Buffer.concat([a, b]));
  t.match(images, [
    { board: 'TEST', version: '1.2.3', slot: 0, checksum: crc32(a) },
    { board: 'TEST', version: '1.2.3', slot: 1, checksum: crc32(b) },
  ]);
  t.equal(Buffer.from(images[1]?.bytes ?? []).toString('hex'), Buffer.from(b).toString('hex'));
  t.equal(a.length, 512 + 104, 'a body is filled up to whole units');
});

t.test('the build packs the same bytes', async (t) => {
  const built: Uint8Array = packImage({ body, letters: 'TEST', version: '1.2.3', source: 0, address: 0x30000, slot: 1 });
  t.equal(Buffer.from(built).toString('hex'), Buffer.from(b).toString('hex'));
  t.equal(versionWord('255.1.65535'), 0xff01ffff);
  t.throws(() => versionWord('256.0.0'));
  t.throws(() => versionWord('one'));
});

t.test('damage is found', async (t) => {
  const taken = [...a.keys()].filter((at) => {
    const damaged = a.slice();
    damaged[at] = (damaged[at] ?? 0) ^ 1;
    try {
      parseFirmware('damaged', damaged);
      return true;
    } catch {
      return false;
    }
  });
  t.ok(taken.every((at) => at >= 40 && at < 512) && taken.length === 472, 'in every byte but the padding');
  for (const [name, bytes] of [
    ['empty', new Uint8Array()],
    ['cut off', a.subarray(0, -8)],
    ['a header alone', a.subarray(0, 100)],
    ['three images', Buffer.concat([a, b, a])],
    ['slot 2', packFirmware({ body, board: 'TEST', versionWord: 1, slot: 2 as 1 })],
    ['no body', packFirmware({ body: new Uint8Array(), board: 'TEST', versionWord: 1, slot: 0 })],
  ] as const) {
    t.throws(() => parseFirmware('file', bytes), { code: 'FIRMWARE_IMAGE' }, name);
  }
});

t.test('words and letters', async (t) => {
  t.equal(crc32(Buffer.from('123456789')), 0xcbf43926);
  t.equal(lettersOf(wordOf('S2G4')), 'S2G4');
  t.equal(lettersOf(0), '????');
  t.same([0, 1, 255].map(slotName), ['A', 'B', 'boot loader']);
  t.same([0, 0x0a000001].map(versionText), ['none', '10.0.1']);
});
