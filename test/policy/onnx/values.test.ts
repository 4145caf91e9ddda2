/** Pictures, joints, words and actions of an exported policy as numbers, each against a straightforward oracle. */
import t from 'tap';
import { instructionTokens, wordsOf } from '../../../src/policy/onnx/instruction.js';
import type { CameraInput, OnnxOutput } from '../../../src/policy/onnx/job.js';
import { actionsOf, sizesOf } from '../../../src/policy/onnx/output.js';
import { fitted, type Picture, pictureShape, pictureValues } from '../../../src/policy/onnx/picture.js';
import { Random } from '../../../src/sim/random.js';
import { errorOf } from '../../support/fixtures.js';

const SEED = 20261130;
t.comment(`seed ${SEED}`);
const random = new Random(SEED);

function picture(width: number, height: number): Picture {
  return { width, height, data: Uint8Array.from({ length: width * height * 3 }, () => random.integer(256)) };
}

const camera = (changes: Partial<CameraInput> = {}): CameraInput => ({
  from: 'camera',
  camera: 'c',
  layout: 'NCHW',
  height: 3,
  width: 5,
  dtype: 'f32',
  resize: 'none',
  order: 'rgb',
  ...changes,
});

t.test('layouts, types, orders and normalisation', async (t) => {
  const seen = picture(5, 3);
  for (const layout of ['NCHW', 'NHWC', 'CHW', 'HWC'] as const) {
    for (const order of ['rgb', 'bgr'] as const) {
      for (const dtype of ['f32', 'u8'] as const) {
        const numbers = dtype === 'u8' ? {} : { scale: 1 / 255, mean: [0.1, 0.2, 0.3] as const, std: [0.5, 0.25, 2] as const };
        const input = camera({ layout, order, dtype, ...numbers });
        const values = pictureValues(seen, input);
        t.ok(dtype === 'u8' ? values instanceof Uint8Array : values instanceof Float32Array);
        const shape = pictureShape(input);
        t.equal(
          values.length,
          shape.reduce((product, size) => product * size, 1),
        );
        t.same(shape, { NCHW: [1, 3, 3, 5], NHWC: [1, 3, 5, 3], CHW: [3, 3, 5], HWC: [3, 5, 3] }[layout]);
        let worst = 0;
        for (let y = 0; y < 3; y++) {
          for (let x = 0; x < 5; x++) {
            for (let channel = 0; channel < 3; channel++) {
              const byte = seen.data[(y * 5 + x) * 3 + (order === 'rgb' ? channel : 2 - channel)] as number;
              const wanted = dtype === 'u8' ? byte : (byte / 255 - (input.mean?.[channel] ?? 0)) / (input.std?.[channel] ?? 1);
              const at = layout.endsWith('CHW') ? (channel * 3 + y) * 5 + x : (y * 5 + x) * 3 + channel;
              worst = Math.max(worst, Math.abs((values[at] ?? Number.NaN) - wanted));
            }
          }
        }
        // One rounding to float32 of values below 4.
        t.ok(worst < 3e-7, `${layout} ${order} ${dtype}: ${worst}`);
      }
    }
  }
});

/** The mean of what a pixel covers, by looking at a fine grid of points in it. */
function areaOracle({ width, height, data }: Picture, x: number, y: number, channel: number, to: CameraInput): number {
  const points = 60;
  let sum = 0;
  for (let row = 0; row < points; row++) {
    for (let column = 0; column < points; column++) {
      const [sx, sy] = [((x + (column + 0.5) / points) * width) / to.width, ((y + (row + 0.5) / points) * height) / to.height];
      sum += data[(Math.floor(sy) * width + Math.floor(sx)) * 3 + channel] ?? 0;
    }
  }
  return sum / points ** 2;
}

/** The two nearest pixels along each axis. */
function bilinearOracle({ width, height, data }: Picture, x: number, y: number, channel: number, to: CameraInput): number {
  const clamp = (value: number, size: number): number => Math.min(size - 1, Math.max(0, value));
  const [sx, sy] = [clamp(((x + 0.5) * width) / to.width - 0.5, width), clamp(((y + 0.5) * height) / to.height - 0.5, height)];
  const at = (column: number, row: number): number => data[(clamp(row, height) * width + clamp(column, width)) * 3 + channel] ?? 0;
  const [left, top] = [Math.floor(sx), Math.floor(sy)];
  const mix = (a: number, b: number, share: number): number => a * (1 - share) + b * share;
  return mix(mix(at(left, top), at(left + 1, top), sx - left), mix(at(left, top + 1), at(left + 1, top + 1), sx - left), sy - top);
}

t.test('resizing', async (t) => {
  const sizes: readonly [number, number][] = [
    [10, 6],
    [20, 12],
    [4, 9],
    [3, 2],
    [5, 30],
  ];
  for (const [width, height] of sizes) {
    for (const resize of ['area', 'bilinear'] as const) {
      const seen = picture(width, height);
      const input = camera({ resize });
      const small = fitted(seen, input) as Picture;
      t.match(small, { width: 5, height: 3 });
      const oracle = resize === 'area' ? areaOracle : bilinearOracle;
      let worst = 0;
      for (let y = 0; y < 3; y++)
        for (let x = 0; x < 5; x++)
          for (let channel = 0; channel < 3; channel++) {
            const wanted = oracle(seen, x, y, channel, input);
            worst = Math.max(worst, Math.abs((small.data[(y * 5 + x) * 3 + channel] ?? Number.NaN) - wanted));
          }
      // Half a byte of rounding, and for areas what a grid of 60 points misses of an edge.
      t.ok(worst < (resize === 'area' ? 0.5 + (255 * 2) / 60 : 0.5001), `${width} x ${height} ${resize}: ${worst}`);
    }
  }
  const flat: Picture = { width: 7, height: 7, data: new Uint8Array(147).fill(200) };
  for (const resize of ['area', 'bilinear'] as const)
    t.ok(
      fitted(flat, camera({ resize }))?.data.every((byte) => byte === 200),
      'a flat picture stays flat',
    );
});

t.test('a whole number of pixels is averaged exactly', async (t) => {
  const seen = picture(10, 6);
  const small = fitted(seen, camera({ resize: 'area' })) as Picture;
  for (let at = 0; at < small.data.length; at++) {
    const [channel, x, y] = [at % 3, Math.floor(at / 3) % 5, Math.floor(at / 15)];
    const four = [0, 1].flatMap((dy) => [0, 1].map((dx) => seen.data[((2 * y + dy) * 10 + 2 * x + dx) * 3 + channel] ?? 0));
    const mean = four.reduce((sum, value) => sum + value, 0) / 4;
    if (Math.abs((small.data[at] ?? 0) - mean) > 0.5) t.fail(`pixel ${x}, ${y}`);
  }
  t.pass('all pixels');
});

t.test('a picture of the right size is copied; of another one it needs to be told how', async (t) => {
  const seen = picture(5, 3);
  const same = fitted(seen, camera());
  t.same(same?.data, seen.data);
  t.not(same?.data, seen.data);
  t.equal(fitted(picture(4, 3), camera()), undefined);
});

t.test('instructions', async (t) => {
  const input = { from: 'instruction', words: { Touch: 1, the: 2, red: 3 }, length: 4, padding: 0 } as const;
  t.same(wordsOf("Touch the RED, button! 2-3 it's"), ['touch', 'the', 'red', 'button', '2-3', "it's"]);
  t.same(instructionTokens('touch THE red.', input), [1, 2, 3, 0]);
  t.same(instructionTokens('', input), [0, 0, 0, 0]);
  t.same(instructionTokens('touch it', { ...input, unknown: 7, padding: 9 }), [1, 7, 9, 9]);
  const refused = (prompt: string) => errorOf((async () => instructionTokens(prompt, input))());
  t.match(await refused('touch the blue'), { code: 'ONNX_INSTRUCTION', field: 'prompt', found: '"blue"' });
  t.match(await refused('the the the the the'), { code: 'ONNX_INSTRUCTION', expected: 'at most 4 words', found: '5' });
});

const meaning = (changes: Partial<OnnxOutput> = {}): OnnxOutput => ({ name: 'a', layout: '1HD', channels: [2, 0], values: 'absolute', ...changes });

t.test('outputs: layouts and channels', async (t) => {
  t.same(sizesOf([1, 7, 3], '1HD'), { horizon: 7, channels: 3 });
  t.same(sizesOf([1, 3, 7], '1DH'), { horizon: 7, channels: 3 });
  t.same(sizesOf([7, 3], 'HD'), { horizon: 7, channels: 3 });
  t.same(sizesOf([3, 7], 'DH'), { horizon: 7, channels: 3 });
  for (const [shape, layout] of [
    [[7, 3], '1HD'],
    [[2, 7, 3], '1HD'],
    [[1, 7, 3], 'HD'],
    [[7], 'DH'],
    [[1, 1, 7, 3], '1DH'],
  ] as const)
    t.equal(sizesOf(shape, layout), undefined, `${shape} is no ${layout}`);
  // Value = 10 action + channel.
  const raw = (layout: string): number[] =>
    Array.from({ length: 21 }, (_, at) => (layout.endsWith('HD') ? 10 * Math.floor(at / 3) + (at % 3) : 10 * (at % 7) + Math.floor(at / 7)));
  for (const layout of ['1HD', 'HD', '1DH', 'DH'] as const) {
    const { values } = actionsOf(raw(layout), { horizon: 7, channels: 3 }, meaning({ layout }), undefined);
    t.same([...values], Array.from({ length: 7 }, (_, action) => [10 * action + 2, 10 * action]).flat(), layout);
  }
});

t.test('outputs: units and meanings', async (t) => {
  const raw = [0, 5, 1, 1, 5, -1];
  const sizes = { horizon: 2, channels: 3 };
  const of = (changes: Partial<OnnxOutput>, pose?: number[]) => [...actionsOf(raw, sizes, meaning(changes), pose).values];
  t.same(of({ mean: [1, 0, 2], std: [10, 1, 3] }), [5, 1, -1, 11]);
  t.same(of({ min: [-2, 0, 0], max: [2, 1, 4] }), [4, 0, 0, 2]);
  t.same(of({ values: 'from_state' }, [100, 200]), [101, 200, 99, 201]);
  t.same(of({ values: 'from_previous' }, [100, 200]), [101, 200, 100, 201]);
});

t.test('outputs: no numbers', async (t) => {
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    const error = await errorOf((async () => actionsOf([0, 0, 0, bad, 0, 0], { horizon: 2, channels: 3 }, meaning(), undefined))());
    t.match(error, { code: 'ONNX_OUTPUT_VALUE', field: 'a', found: `${bad} in action 1, channel 0` });
  }
  t.doesNotThrow(() => actionsOf([0, Number.NaN, 0], { horizon: 1, channels: 3 }, meaning(), undefined), 'a channel that no joint uses');
});
