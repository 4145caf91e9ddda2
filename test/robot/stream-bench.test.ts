/** bench/stream.ts runs tiny, so that it cannot rot: it fails unless 14 axes followed; and the bits of frames are counted right. */
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { frameBits } from '../../bench/can-bits.js';
import { alone } from '../support/real-time.js';

await alone(t);

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

t.test('bits of a frame', (t) => {
  const frame = (id: number, bytes: readonly number[], isFd = false, isBitRateSwitched = false) =>
    frameBits({ id, data: Uint8Array.from(bytes), isFd, isBitRateSwitched });
  // 1 start, 11 identifier, 3 flags, 4 length, 64 data, 15 checksum, 10 to the end, 3 intermission.
  const alternating = frame(0x555, Array(8).fill(0x55));
  t.equal(alternating.nominal - alternating.stuff, 111, 'a classic frame of eight bytes has 111 bits without stuff');
  t.ok(alternating.stuff <= 3, 'alternating bits need next to no stuff');
  const zeros = frame(0, Array(8).fill(0));
  // 1 + 11 + 3 zeros before the length's 1000, 3 + 64 zeros after its one: a one after every five.
  t.ok(zeros.stuff >= 3 + 13 && zeros.nominal === 111 + zeros.stuff, `zeros need ${zeros.stuff} stuff bits`);
  t.equal(frame(0x123, []).nominal - frame(0x123, []).stuff, 47, 'an empty frame has 47');
  const fd = frame(0x080, Array(64).fill(0x55), true, true);
  // ESI, length, 512 data, stuff count 4, checksum 21, fixed stuff 7.
  t.equal(fd.data, 1 + 4 + 512 + 4 + 21 + 7 + (fd.stuff - 7 - slowStuff(0x080)), 'an FD frame of 64 bytes, fast part');
  t.equal(fd.nominal, 17 + slowStuff(0x080) + 13, 'and slow part');
  t.equal(frame(0x080, Array(64).fill(0x55), true, false).data, 0, 'without the switch nothing is fast');
  t.throws(() => frame(1, Array(9).fill(0)), 'no frame has nine bytes');
  t.end();
});

/** Stuff bits before the data part of an FD frame: the only ones of 0x080 are in its leading zeros, start bit included, and its trailing ones. */
function slowStuff(id: number): number {
  const bits = `0${id.toString(2).padStart(11, '0')}00101`;
  let stuff = 0;
  let run = '';
  for (const bit of bits) {
    run = run.endsWith(bit) ? run + bit : bit;
    if (run.length < 5) continue;
    stuff += 1;
    run = bit === '0' ? '1' : '0';
  }
  return stuff;
}

t.test('the bench of the stream process', (t) => {
  const bench = join(root, 'bench', 'stream.ts');
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import=tsx', bench, '--seconds', '1', '--rounds', '1'], { encoding: 'utf8' });
  t.equal(status, 0, stderr);
  for (const phase of ['idle', 'busy']) {
    t.match(stdout, new RegExp(`${phase}: wake-up, premotor-stream \\| \\d`), `${phase}: measured`);
    if (!new RegExp(`${phase}: wake-up, cyclictest \\| \\d`).test(stdout)) t.comment(`${phase}: no figures of cyclictest: ${stdout}`);
  }
  const load = /FD, cycle 1 ms \| (\d+) \| .* \| ([\d.]+) % \| ([\d.]+) % \|/.exec(stdout);
  t.ok(load !== null && Number(load[1]) > 500 && Number(load[3]) > Number(load[2]), 'the bus was loaded');
  t.end();
});
