/** Packed values: what comes back is what went in, to the bit; what was changed is refused, never misread into something unsafe. */
import t from 'tap';
import { pack, unpack } from '../../src/journal/pack.js';
import { toTensor } from '../../src/policy/tensor.js';
import { thrownBy } from '../support/fixtures.js';

t.test('values, arrays and big integers come back', async (t) => {
  const value = {
    prompt: 'größe',
    list: [1, null, true, { deep: Float64Array.of(Math.PI, -0, Number.NaN) }],
    bytes: Uint8Array.of(1, 2, 3),
    ints: Int32Array.of(-1),
    atNs: 2n ** 62n,
    empty: new Float32Array(0),
  };
  t.same(unpack(pack(value)), value);
  t.equal(Object.is((unpack(pack(Float64Array.of(-0))) as Float64Array)[0], -0), true);
  t.same(unpack(pack(undefined)), null);
});

t.test('what is no data is left out', async (t) => {
  const value = { signal: new AbortController().signal, onProgress: () => undefined, none: undefined, kept: 1 };
  t.same(unpack(pack(value)), { kept: 1 });
  const labelled = unpack(pack(toTensor(Float32Array.of(1, 2), [1, 2])));
  t.same(labelled, Float32Array.of(1, 2));
  t.notOk('shape' in (labelled as object));
});

t.test('a view into a larger buffer is packed alone, and what comes back owns its memory', async (t) => {
  const view = Float32Array.of(1, 2, 3, 4).subarray(1, 3);
  const back = unpack(pack(view)) as Float32Array;
  t.same(back, Float32Array.of(2, 3));
  t.equal(back.buffer.byteLength, 8);
});

t.test('what no pack wrote is refused', async (t) => {
  const samples = [
    new Uint8Array(0),
    Uint8Array.of(255, 255, 255, 255),
    pack({ a: 1 }).subarray(0, 6),
    Buffer.from('\u0020\0\0\0{"$premotor":"f32","at":0,"length":9}   '),
    Buffer.from('\u0021\0\0\0{"$premotor":"code","value":"x()"}  '),
  ];
  for (const sample of samples)
    t.match(
      thrownBy(() => unpack(sample)),
      { code: 'JOURNAL_DAMAGED', expected: 'a packed value' },
    );
});
