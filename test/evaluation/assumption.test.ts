/** How right assumed frames were: compared with what was then seen, once each, beside the last frame that was known. */
import t from 'tap';
import type { CycleEvent } from '../../src/control/events.js';
import { AssumptionMeter } from '../../src/evaluation/assumption.js';
import { AssumedFilm } from '../../src/evaluation/imagined.js';
import type { Timing } from '../../src/policy/contract.js';
import { framesOf, splitFrames, toTensor } from '../../src/policy/tensor.js';

/** Frames of one channel and one pixel. */
const frames = (...values: number[]) => toTensor(Float32Array.from(values), [1, 1, values.length, 1, 1]);
const timing = {} as Timing;
const predicted = (frameIndex: number, assumed?: ReturnType<typeof frames>): CycleEvent => ({
  type: 'predicted',
  chunk: 0,
  frameIndex,
  latents: frames(7, 8),
  timing,
  ...(assumed ? { assumed } : {}),
});

t.test('errors are those of the frames that were assumed', (t) => {
  const meter = new AssumptionMeter();
  t.ok(meter.isEmpty);
  meter.listen(predicted(0));
  meter.listen({ type: 'remembered', frameIndex: 0, latents: frames(1, 2) });
  meter.listen(predicted(4, frames(3, 6)));
  meter.listen({ type: 'remembered', frameIndex: 2, latents: frames(3, 4) });
  // Frame 2 was right, frame 3 off by 2; frame 1, the last one known, was 2: off by 1 and 2.
  t.same(meter.result(), { frames: 2, errorRms: Math.sqrt(4 / 2), stillErrorRms: Math.sqrt(5 / 2) });
  t.notOk(meter.isEmpty);
  meter.listen({ type: 'remembered', frameIndex: 4, latents: frames(9) });
  t.equal(meter.result().frames, 2, 'what nobody assumed counts nowhere');
  t.end();
});

t.test('the film shows the same frames three times: seen, imagined, foreseen', async (t) => {
  const film = new AssumedFilm();
  film.listen({ type: 'remembered', frameIndex: 0, latents: frames(0, 1) });
  film.listen(predicted(2));
  film.listen(predicted(4, frames(20, 30)));
  film.listen({ type: 'remembered', frameIndex: 2, latents: frames(2, 3) });
  const decoded: number[][] = [];
  const rows = await film.rows(
    {
      decode: async (latents) => {
        const values = [...(latents as unknown as Float32Array)];
        decoded.push(values);
        const picture = { camera: 'imagined', width: 1, height: 1, data: Uint8Array.of(1, 2, 3), capturedAtNs: 0n };
        return Object.assign(Array(4 * values.length - 3).fill(picture), { video: frames(0) });
      },
    },
    3,
    0.32,
  );
  t.same(decoded, [
    [0, 1, 2, 3],
    [0, 1, 20, 30],
    [0, 1, 7, 8],
  ]);
  t.same(
    rows.map(({ pictures }) => pictures.map(({ timeS }) => timeS)),
    [[0.96], [0.96], [0.96]],
  );
});

t.test('latents come apart into frames and together again', (t) => {
  const latents = toTensor(
    Float32Array.from({ length: 2 * 3 * 4 }, (_, index) => index),
    [1, 2, 3, 2, 2],
  );
  const apart = splitFrames(latents);
  t.same([...(apart[1] ?? [])], [4, 5, 6, 7, 16, 17, 18, 19]);
  t.same([...framesOf(apart, latents.shape)], [...latents]);
  t.same(framesOf(apart.slice(0, 2), latents.shape).shape, [1, 2, 2, 2, 2]);
  t.end();
});
