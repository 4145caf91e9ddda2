/** The safetensors reader and writer: round trips of every dtype, pieces smaller than tensors, shards, and every kind of damage. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { bfloat16Bits, bytesOf, elementsOf, float16Value, type StoredDtype, toFloat32 } from '../../src/checkpoint/dtypes.js';
import { SafetensorsFile } from '../../src/checkpoint/safetensors.js';
import { requireFreeSpace, splitPlans, type TensorPlan, writeComponent, writeSafetensors } from '../../src/checkpoint/writer.js';
import { PremotorError } from '../../src/errors.js';

/** Byte i of a tensor is a function of the tensor and i, so a misplaced piece shows. */
function expectedBytes(plan: TensorPlan): Uint8Array {
  const length = elementsOf(plan.shape) * bytesOf(plan.dtype);
  return Uint8Array.from({ length }, (_, index) => (index * 7 + plan.name.length * 13 + (index >> 8)) & 0xff);
}

function fill(plan: TensorPlan, first: number, target: Uint8Array): void {
  target.set(expectedBytes(plan).subarray(first * bytesOf(plan.dtype), first * bytesOf(plan.dtype) + target.length));
}

/** A file from a header object (or raw text) and data bytes. */
function rawFile(path: string, header: unknown, data: Uint8Array = new Uint8Array(0), headerLength?: number): string {
  const json = new TextEncoder().encode(typeof header === 'string' ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(headerLength ?? json.length), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + json.length);
  writeFileSync(path, bytes);
  return path;
}

t.test('a file written in small pieces reads back byte for byte', async (t) => {
  const dir = t.testdir();
  const dtypes: StoredDtype[] = ['U8', 'F16', 'BF16', 'F32', 'F64', 'I64', 'I32', 'I16', 'I8', 'BOOL'];
  const plans = dtypes.map((dtype, index): TensorPlan => ({ name: `tensor.${'x'.repeat(index)}`, dtype, shape: [3 + index, 1, 7] }));
  plans.push({ name: 'scalar', dtype: 'F32', shape: [] }, { name: 'empty', dtype: 'F32', shape: [0, 4] });
  const path = join(dir, 'a.safetensors');
  let reported = 0;
  await writeSafetensors(path, plans, fill, { pieceBytes: 48, metadata: { made: 'here' }, onBytes: (bytes) => (reported += bytes) });
  const file = SafetensorsFile.open(path);
  t.equal(file.metadata['made'], 'here');
  t.equal(file.tensors.size, plans.length);
  for (const plan of plans) {
    const stored = file.tensor(plan.name);
    t.same([stored.dtype, stored.shape], [plan.dtype, plan.shape]);
    t.same(file.bytes(plan.name), expectedBytes(plan), plan.dtype);
    t.equal(stored.begin % bytesOf(plan.dtype), 0, `${plan.dtype} lies at a multiple of its size`);
  }
  t.equal(
    reported,
    plans.reduce((sum, plan) => sum + elementsOf(plan.shape) * bytesOf(plan.dtype), 0),
  );
  t.notOk(existsSync(join(dir, '.a.safetensors.part')));
  file.close();
  file.close();
  t.throws(() => file.bytes('scalar'), { code: 'FILE_CLOSED' });
});

t.test('values convert to float32 and int32', async (t) => {
  const bytes = (array: ArrayBufferView): Uint8Array => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  const values = { F32: Float32Array.of(1.5, -2), F64: Float64Array.of(0.1, 3), I64: BigInt64Array.of(5n, -6n), I32: Int32Array.of(7, -8) };
  const more = { I16: Int16Array.of(9, -10), I8: Int8Array.of(11, -12), U8: Uint8Array.of(13, 255), BOOL: Uint8Array.of(1, 0) };
  const halves = { F16: Uint16Array.of(0x3c00, 0xc100, 0x0001, 0x7bff, 0xfc00), BF16: Uint16Array.of(0x3f80, 0xc040) };
  const all = { ...values, ...more, ...halves };
  const path = join(t.testdir(), 'v.safetensors');
  const plans = Object.entries(all).map(([name, array]): TensorPlan => ({ name, dtype: name as StoredDtype, shape: [array.length] }));
  await writeSafetensors(path, plans, (plan, first, target) => {
    const source = bytes(all[plan.name as keyof typeof all]);
    target.set(source.subarray(first * bytesOf(plan.dtype), first * bytesOf(plan.dtype) + target.length));
  });
  const file = SafetensorsFile.open(path);
  t.teardown(() => file.close());
  t.same([...file.float32('F32')], [1.5, -2]);
  t.same([...file.float32('F64')], [Math.fround(0.1), 3]);
  t.same([...file.float32('F16')], [1, -2.5, 2 ** -24, 65504, -Infinity]);
  t.same([...file.float32('BF16')], [1, -3]);
  t.same([...file.float32('I64')], [5, -6]);
  t.same([...file.int32('I64')], [5, -6]);
  t.same([...file.int32('I32')], [7, -8]);
  t.same([...file.int32('I16')], [9, -10]);
  t.same([...file.int32('I8')], [11, -12]);
  t.same([...file.int32('U8')], [13, 255]);
  t.same([...file.float32('BOOL')], [1, 0]);
  t.throws(() => file.int32('F32'), { code: 'CHECKPOINT_DTYPE' });
  t.throws(() => file.tensor('none'), { code: 'CHECKPOINT_MISSING_TENSOR', tensor: 'none' });
});

t.test('bfloat16 rounds to nearest even and keeps NaN', async (t) => {
  const back = (value: number): number => toFloat32('BF16', new Uint8Array(Uint16Array.of(bfloat16Bits(value)).buffer))[0] ?? 0;
  t.equal(back(1 + 2 ** -8), 1, 'a tie goes to the even side below');
  t.equal(back(1 + 3 * 2 ** -8), 1 + 2 ** -6, 'a tie goes to the even side above');
  t.equal(back(952.38), 952);
  t.equal(back(882.35), 884);
  t.equal(back(Infinity), Infinity);
  t.ok(Number.isNaN(back(NaN)));
  t.ok(Number.isNaN(float16Value(0x7e00)));
});

t.test('shards are about equal and their index names every tensor', async (t) => {
  const dir = t.testdir();
  const plans = Array.from({ length: 9 }, (_, index): TensorPlan => ({ name: `t${index}`, dtype: 'F32', shape: [10 + index] }));
  await writeComponent(dir, 'model', plans, fill, { shards: 3 });
  const index = JSON.parse(readFileSync(join(dir, 'model.safetensors.index.json'), 'utf8')) as {
    metadata: { total_size: number };
    weight_map: Record<string, string>;
  };
  t.equal(
    index.metadata.total_size,
    plans.reduce((sum, plan) => sum + elementsOf(plan.shape) * 4, 0),
  );
  t.same(Object.keys(index.weight_map).sort(), plans.map((plan) => plan.name).sort());
  t.same(new Set(Object.values(index.weight_map)).size, 3);
  for (const plan of plans) {
    const file = SafetensorsFile.open(join(dir, index.weight_map[plan.name] ?? ''));
    t.same(file.bytes(plan.name), expectedBytes(plan));
    file.close();
  }
  t.same(splitPlans(plans.slice(0, 1), 3).length, 1, 'no shard is empty');
});

t.test('every kind of damage has its code', async (t) => {
  const dir = t.testdir({ seven: 'abcdefg' });
  const path = (name: string): string => join(dir, name);
  const one = { a: { dtype: 'F32', shape: [2], data_offsets: [0, 8] } };
  const cases: [string, () => string, string][] = [
    ['no file', () => path('none'), 'CHECKPOINT_MISSING_FILE'],
    ['7 bytes', () => path('seven'), 'CHECKPOINT_TRUNCATED'],
    ['header past the end', () => rawFile(path('h'), one, new Uint8Array(8), 4096), 'CHECKPOINT_TRUNCATED'],
    ['huge header', () => rawFile(path('huge'), one, new Uint8Array(8), 2 ** 40), 'CHECKPOINT_HEADER'],
    ['no JSON', () => rawFile(path('j'), '{nonsense'), 'CHECKPOINT_HEADER'],
    ['a list', () => rawFile(path('l'), '[]'), 'CHECKPOINT_HEADER'],
    ['data missing', () => rawFile(path('t'), one, new Uint8Array(4)), 'CHECKPOINT_TRUNCATED'],
    ['data left over', () => rawFile(path('o'), one, new Uint8Array(12)), 'CHECKPOINT_OVERSIZED'],
    [
      'overlap',
      () => rawFile(path('v'), { ...one, b: { dtype: 'F32', shape: [2], data_offsets: [4, 12] } }, new Uint8Array(12)),
      'CHECKPOINT_OVERLAP',
    ],
    ['hole', () => rawFile(path('e'), { ...one, b: { dtype: 'F32', shape: [1], data_offsets: [12, 16] } }, new Uint8Array(16)), 'CHECKPOINT_HEADER'],
    ['dtype', () => rawFile(path('d'), { a: { dtype: 'Q4', shape: [2], data_offsets: [0, 8] } }, new Uint8Array(8)), 'CHECKPOINT_DTYPE'],
    ['shape', () => rawFile(path('s'), { a: { dtype: 'F32', shape: [3], data_offsets: [0, 8] } }, new Uint8Array(8)), 'CHECKPOINT_SHAPE'],
    ['negative', () => rawFile(path('n'), { a: { dtype: 'F32', shape: [-2], data_offsets: [0, 8] } }, new Uint8Array(8)), 'CHECKPOINT_SHAPE'],
    [
      '2^80 values',
      () => rawFile(path('z'), { a: { dtype: 'F32', shape: [2 ** 40, 2 ** 40], data_offsets: [0, 8] } }, new Uint8Array(8)),
      'CHECKPOINT_SHAPE',
    ],
    ['offsets', () => rawFile(path('f'), { a: { dtype: 'F32', shape: [2], data_offsets: [8] } }, new Uint8Array(8)), 'CHECKPOINT_HEADER'],
    ['entry', () => rawFile(path('m'), { a: null }, new Uint8Array(8)), 'CHECKPOINT_DTYPE'],
  ];
  for (const [name, make, code] of cases) t.throws(() => SafetensorsFile.open(make()), { code }, name);
});

t.test('a write that fails leaves nothing behind', async (t) => {
  const dir = t.testdir({ file: 'not a folder' });
  const plans: TensorPlan[] = [{ name: 'a', dtype: 'F32', shape: [64] }];
  await t.rejects(writeSafetensors(join(dir, 'file', 'a.safetensors'), plans, fill), { code: 'FILE_WRITE' });
  const controller = new AbortController();
  const stop = (plan: TensorPlan, first: number, target: Uint8Array): void => {
    fill(plan, first, target);
    controller.abort();
  };
  const path = join(dir, 'b.safetensors');
  await t.rejects(writeSafetensors(path, plans, stop, { pieceBytes: 32, signal: controller.signal }), { code: 'ABORTED' });
  t.notOk(existsSync(path));
  t.notOk(existsSync(join(dir, '.b.safetensors.part')));
  await t.rejects(requireFreeSpace(dir, 1e18), PremotorError);
  await t.rejects(requireFreeSpace(dir, 1e18), { code: 'DISK_FULL' });
});
