/** Labelled arrays, joined latents, and films as pictures. */
import t from 'tap';
import { joinLatents, toTensor, toVideo } from '../../src/policy/tensor.js';
import { thrownBy } from '../support/fixtures.js';

t.test('a tensor is its array with labels', (t) => {
  const data = Float32Array.of(1, 2, 3, 4, 5, 6);
  const tensor = toTensor(data, [2, 3]);
  t.equal(tensor, data, 'not a copy');
  t.equal(tensor.data, data);
  t.same(tensor.shape, [2, 3]);
  t.equal(tensor.dtype, 'float32');
  t.same(Object.keys(tensor), ['0', '1', '2', '3', '4', '5'], 'labels are not enumerable');
  t.same(toTensor(data, [6]).shape, [6], 'it can be labelled anew');
  t.throws(() => (tensor.shape as number[]).push(1), 'shapes are frozen');
  t.end();
});

t.test('latents are joined along their frames, channel by channel', (t) => {
  const first = toTensor(Float32Array.of(1, 2, 3, 4), [1, 2, 1, 1, 2]);
  const second = toTensor(Float32Array.of(5, 6, 7, 8, 9, 10, 11, 12), [1, 2, 2, 1, 2]);
  const joined = joinLatents([first, second]);
  t.same(joined.shape, [1, 2, 3, 1, 2]);
  t.same([...joined], [1, 2, 5, 6, 7, 8, 3, 4, 9, 10, 11, 12]);
  t.equal(thrownBy(() => joinLatents([])).code, 'ARGUMENT_INVALID');
  const other = toTensor(new Float32Array(3), [1, 1, 1, 1, 3]);
  t.equal(thrownBy(() => joinLatents([first, other])).code, 'ARGUMENT_INVALID');
  t.end();
});

t.test('a film as pictures: 8 bits are round(v * 255)', async (t) => {
  const values = [0, 1, 0.5, 0.001, 0.002, 0.999, 254.5 / 255, 100.4 / 255, 100.6 / 255, -0.1, 1.2, 0.25];
  const video = await toVideo(toTensor(Float32Array.from(values), [2, 1, 2, 3]));
  t.equal(video.length, 2);
  t.same(
    video.map(({ width, height, camera, capturedAtNs }) => [width, height, camera, capturedAtNs]),
    [
      [2, 1, 'imagined', 0n],
      [2, 1, 'imagined', 0n],
    ],
  );
  t.same([...(video[0]?.data ?? [])], [0, 255, 128, 0, 1, 255]);
  t.same([...(video[1]?.data ?? [])].slice(1), [100, 101, 0, 255, 64]);
  t.same(video.video.shape, [2, 1, 2, 3]);
});
