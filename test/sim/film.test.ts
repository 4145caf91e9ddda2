/** The film: real and imagined pictures of one moment stand in one row. */
import t from 'tap';
import { ControlCycle } from '../../src/control/cycle.js';
import type { Frame } from '../../src/policy/contract.js';
import { composeFilm, EpisodeFilm, FILM_FRAMES_MAX, splitColumns } from '../../src/sim/film.js';
import { SIM_JOB } from '../../src/sim/job.js';
import { FakeCameras, FakePolicy, FakeRobot, tensor } from '../control/fakes.js';

const solid = (camera: string, capturedAtNs: bigint, value: number, [width, height] = [4, 2]): Frame => ({
  camera,
  width: width ?? 0,
  height: height ?? 0,
  data: new Uint8Array((width ?? 0) * (height ?? 0) * 3).fill(value),
  capturedAtNs,
});

t.test('a joined picture is cut into the cameras it was joined from', async (t) => {
  const data = Uint8Array.from({ length: 4 * 2 * 3 }, (_, index) => index);
  const [left, right] = splitColumns({ width: 4, height: 2, data }, 2);
  t.same([left?.width, left?.height], [2, 2]);
  t.same([...(left?.data ?? [])], [0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17]);
  t.same([...(right?.data ?? [])], [6, 7, 8, 9, 10, 11, 18, 19, 20, 21, 22, 23]);
});

t.test('row n shows observation n beside imagined picture n', async (t) => {
  const seen = [0n, 80_000_000n, 160_000_000n].map((time, index) => [solid('x.front', time, 10 + index), solid('x.wrist', time, 20 + index)]);
  const imagined = [0, 1, 2].map((index) => solid('', 0n, 30 + index, [8, 2]));
  const rows = await composeFilm(seen, imagined);
  t.equal(rows.length, 3);
  for (const [index, row] of rows.entries()) {
    // Four pictures of 8 x 4 after doubling; the last row of pixels is free of labels.
    t.equal(row.width, 4 * 8 + 3 * 6);
    const bottom = (column: number): number | undefined => row.data[((row.height - 1) * row.width + column) * 3];
    t.same([0, 14, 28, 42].map(bottom), [10 + index, 20 + index, 30 + index, 30 + index]);
  }
  t.equal((await composeFilm(seen.slice(0, 2), imagined)).length, 2, 'moments that were not reached are not shown');
});

t.test('a film has one row per moment of completed chunks, and decodes them as one video', async (t) => {
  const policy = new FakePolicy(() => 0);
  const robot = new FakeRobot();
  const cycle = new ControlCycle({ policy, robot, cameras: new FakeCameras(robot) });
  const film = new EpisodeFilm();
  t.ok(film.isEmpty);
  t.same(await film.compose(policy), []);
  cycle.on(film.listen);
  // The third chunk is cut short and must not appear.
  robot.before = () => (robot.setpoints.length === 10 * (8 + 16 + 5) ? cycle.requestStop('test') : undefined);
  await cycle.arm();
  t.equal((await cycle.run({ prompt: 'x', chunks: 4 })).outcome, 'stopped');
  const K = SIM_JOB.frame_chunk_size;
  const decoded = await policy.decode({ data: new Float32Array(), shape: [1, 48, 2 * K, 6, 12] });
  t.equal(decoded.length, 1 + 4 * (2 * K - 1), 'the decoder gives one picture, then four per latent frame');
  t.notOk(film.isDecoded);
  t.equal((await film.compose(policy)).length, decoded.length, 'as many as were seen: 1 + 4 (K - 1) + 4 K');
  t.ok(film.isDecoded);
  const decodes = (): number => policy.calls.filter((call) => call === 'decode').length;
  const before = decodes();
  const imagined = await film.imagined(policy);
  t.equal(decodes(), before, 'nothing is decoded twice');
  t.equal(imagined.length, decoded.length);
  t.ok(imagined.every(({ timeNs }, index) => index === 0 || timeNs > (imagined[index - 1]?.timeNs ?? 0n)));
});

t.test('a long episode makes a film of bounded length', async (t) => {
  const policy = new FakePolicy(() => 0, { action_per_frame: 4 });
  const robot = new FakeRobot();
  const cycle = new ControlCycle({ policy, robot, cameras: new FakeCameras(robot) });
  const film = new EpisodeFilm();
  cycle.on(film.listen);
  await cycle.arm();
  const chunks = FILM_FRAMES_MAX / SIM_JOB.frame_chunk_size;
  await cycle.run({ prompt: 'x', chunks });
  t.notOk(film.isCut);
  await cycle.arm();
  await cycle.run({ prompt: 'x', chunks: chunks + 1 });
  t.ok(film.isCut);
  const decoded: number[] = [];
  await film.compose({
    decode: async (latents) => {
      decoded.push(('shape' in latents ? latents.shape[2] : 0) ?? 0);
      return Object.assign([], { video: tensor([0]) });
    },
  });
  t.same(decoded, [FILM_FRAMES_MAX]);
});
