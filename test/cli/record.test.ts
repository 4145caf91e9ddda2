/** `premotor record` and `premotor replay` on recordings: what is printed and written, of whole, cut and foreign files; every exit code. */
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import t, { type Test } from 'tap';
import { runCli } from '../../src/cli/main.js';
import { parseOnly, parseSpeed } from '../../src/cli/record.js';
import { PremotorError } from '../../src/errors.js';
import type { RecordingContents } from '../../src/recording/contents.js';
import { RecordingPolicy } from '../../src/replay/recording-policy.js';
import { CAMERAS, configOf, recordingsIn, Watched } from '../recording/support.js';
import { FakeModel, playEpisode } from '../support/fake-model.js';
import { fakeContext } from './fakes.js';

/** A recording of an episode of the fake model, and the folder around it. */
async function recording(t: Test): Promise<{ readonly dir: string; readonly file: string }> {
  const dir = t.testdir();
  const watched = await Watched.open(configOf(join(dir, 'flight'), { mode: 'full' }));
  const policy = new RecordingPolicy(new FakeModel(), undefined, (note) => watched.observer.event({ type: 'call', note }, watched.timeNs));
  await playEpisode(policy, 3);
  for (let one = 0; one < 4; one++) {
    watched.move(250);
    watched.see();
  }
  watched.fail('CAMERA_DARK');
  await watched.stop({ outcome: 'failed', error: new PremotorError('CAMERA_DARK', 'dark') });
  const [file = ''] = recordingsIn(join(dir, 'flight'));
  return { dir, file };
}

async function run(argv: readonly string[], model = new FakeModel(), signal?: AbortSignal): Promise<{ code: number; out: string; err: string }> {
  const { out, err, context } = fakeContext({ loadPolicy: async () => model, ...(signal ? { signal } : {}) });
  const code = await runCli(argv, context);
  return { code, out: out.text, err: err.text };
}

t.test('save: the episode that ended last', async (t) => {
  const dir = t.testdir({ 'robot.yaml': 'robot:\n  type: sim\npolicy:\n  checkpoint_dir: none\nrecording:\n  out_dir: out\n' });
  const [config, flight] = [join(dir, 'robot.yaml'), join(dir, 'out', 'flight')];
  t.match(await run(['record', 'save', config]), { code: 1, err: /RECORD_NOTHING.*out\/flight: expected the window of an episode/ });
  const watched = await Watched.open(configOf(flight));
  watched.call({ method: 'reset', options: { prompt: 'x' } });
  watched.move(300);
  await watched.stop();
  const { code, out } = await run(['record', 'save', config, '--json']);
  t.equal(code, 0);
  const saved = JSON.parse(out);
  t.match(saved, { path: /out\/flight\/saved-\d+T\d+Z\.mcap$/, of: 'ended' });
  t.match((await run(['record', 'info', saved.path])).out, /^state +whole$/m);
  t.match(await run(['record', 'save', join(dir, 'none.yaml')]), { code: 1, err: /CONFIG_/ });
});

t.test('info', async (t) => {
  const { file } = await recording(t);
  const { code, out, err } = await run(['record', 'info', file]);
  t.equal(code, 0, err);
  t.match(out, /^state +whole$/m);
  t.match(out, /^begins +2026-11-30T10:00:00\.000Z$/m);
  t.match(out, /^lasts +1\.000 s, \d+ messages$/m);
  t.match(out, /^task +touch, seed 7: "touch the red button"$/m);
  t.match(out, /^\/motion +premotor\.Motion +1000 +1000\.0/m);
  t.match(out, /^faults\n {2}1\.000 s {2}CAMERA_DARK: /m);
  t.notMatch(out, /damaged/);
  const json = JSON.parse((await run(['record', 'info', file, '--json'])).out) as RecordingContents;
  t.match(json, {
    complete: true,
    damageCount: 0,
    replayEntries: 9,
    faults: [{ code: 'CAMERA_DARK', timeS: 1 }],
    run: { joints: ['yaw', 'shoulder', 'elbow'] },
  });
  truncateSync(file, readFileSync(file).length - 3000);
  const cut = await run(['record', 'info', file]);
  t.equal(cut.code, 0);
  t.match(cut.out, /^state +cut off after \d+ chunks; premotor record recover/m);
  t.match(cut.out, /^damaged parts: 1\n {2}byte \d+: /m);
});

t.test('recover', async (t) => {
  const { dir, file } = await recording(t);
  truncateSync(file, readFileSync(file).length - 3000);
  const target = join(dir, 'whole.mcap');
  const { code, out, err } = await run(['record', 'recover', file, '--out', target]);
  t.equal(code, 0, err);
  t.match(out, /whole\.mcap: \d+ messages, .* whole and indexed; 1 parts could not be read/);
  t.match((await run(['record', 'info', target])).out, /^state +whole$/m);
  t.match(await run(['record', 'recover', file, '--out', target]), { code: 1, err: /error RECORD_WRITE: .*found a file of that name/ });
  const json = JSON.parse((await run(['record', 'recover', file, '--json'])).out);
  t.equal(json.out, file.replace('.mcap', '-recovered.mcap'));
  t.ok(existsSync(json.out));
});

t.test('export', async (t) => {
  const { dir, file } = await recording(t);
  const out = join(dir, 'files');
  const first = await run(['record', 'export', file, '--out', out]);
  t.equal(first.code, 0, first.err);
  t.match(first.out, /1000 samples of motion, 8 pictures, 7 entries about chunks, 1 lines of the log/);
  const [header, ...rows] = readFileSync(join(out, 'motion.csv'), 'utf8').trim().split('\n');
  t.match(header, /^time_ns,robot_time_ns,yaw_setpoint_rad,shoulder_setpoint_rad,.*,elbow_velocity_rad_per_s$/);
  t.equal(rows.length, 1000);
  t.equal(rows[4], '1796032800005000000,5005000000,4,4.1,4.2,4.25,4.35,4.45,4.5,4.6,4.7');
  t.match(readFileSync(join(out, 'log.csv'), 'utf8'), /^time_ns,level,name,message\n\d+,4,state,running -> fault: CAMERA_DARK/);
  const chunks = JSON.parse(readFileSync(join(out, 'chunks.json'), 'utf8'));
  t.match(chunks[1], { topic: '/policy/calls', method: 'predict', actions: { shape: [4, 2, 8] } });
  const folders = readdirSync(join(out, 'pictures')).sort();
  t.same(
    folders,
    CAMERAS.map((camera) => camera.replaceAll('.', '_')),
  );
  const pictures = readdirSync(join(out, 'pictures', folders[0] ?? ''));
  t.same(pictures[0], '1796032800250000000.jpg');
  t.match(await run(['record', 'export', file, '--out', out]), { code: 1, err: /error OUT_NOT_EMPTY/ });
  const again = await run(['record', 'export', file, '--out', out, '--force', '--only', 'pictures', '--png', '--json']);
  t.match(JSON.parse(again.out), { pictures: 8, samples: 0 });
  t.match(await sharp(join(out, 'pictures', folders[0] ?? '', '1796032800250000000.png')).metadata(), { format: 'png', width: 8, height: 6 });
  t.match(await run(['record', 'export', file]), { code: 0 });
  t.ok(existsSync(join(file.replace('.mcap', ''), 'motion.csv')), 'beside the recording');
});

t.test('play', async (t) => {
  const { file } = await recording(t);
  const { code, out, err } = await run(['record', 'play', file, '--speed', 'max']);
  t.equal(code, 0, err);
  t.match(out, /^ {4}0\.000 s {2}policy: call 1 reset, cache [0-9a-f]{16}, 0 entries committed$/m);
  t.match(out, /^ {4}1\.000 s {2}FAULT CAMERA_DARK: /m);
  const lines = (await run(['record', 'play', file, '--speed', '1000', '--json'])).out.trim().split('\n');
  t.match(JSON.parse(lines[0] ?? ''), { atS: 0, topic: '/policy/calls' });
  const stop = new AbortController();
  const playing = run(['record', 'play', file, '--speed', '0.001'], new FakeModel(), stop.signal);
  setTimeout(() => stop.abort(), 0);
  t.match(await playing, { code: 130, err: /error ABORTED/ });
});

t.test('replay: the recording holds every bit that the policy was asked with', async (t) => {
  const { dir, file } = await recording(t);
  const same = await run(['replay', file]);
  t.equal(same.code, 0, same.err);
  t.match(same.out, /answers +the same in every bit/);
  t.match(same.out, /calls +7: 3 predictions, 3 commits, 0 failed/);
  const other = new FakeModel();
  const predict = other.predict.bind(other);
  other.predict = async (options) => predict({ ...options, seed: 6 });
  t.match(await run(['replay', file], other), { code: 1, err: /error REPLAY_DIFFERS: .*call 2 \(predict\), actions/ });
  truncateSync(file, readFileSync(file).length - 3000);
  t.match((await run(['replay', file])).out, /covers +the (whole|beginning of the) episode/);
  const target = join(dir, 'only-log.mcap');
  writeFileSync(target, readFileSync(file).subarray(0, 8));
  t.match(await run(['replay', target]), { code: 1, err: /error REPLAY_DAMAGED: .*found none/ });
});

t.test('what is no recording, and wrong command lines', async (t) => {
  const dir = t.testdir({ 'a.mcap': 'no recording' });
  for (const command of ['info', 'export', 'play', 'recover']) {
    t.match(await run(['record', command, join(dir, 'a.mcap')]), { code: 1, err: /error MCAP_FOREIGN/ }, command);
    t.match(await run(['record', command, join(dir, 'none.mcap')]), { code: 1, err: /error MCAP_MISSING/ }, command);
    t.equal((await run(['record', command])).code, 2);
  }
  t.equal((await run(['record', 'play', 'x', '--speed', '0'])).code, 2);
  t.equal((await run(['record', 'export', 'x', '--only', 'everything'])).code, 2);
  t.same([parseSpeed('max'), parseSpeed('0.5'), parseOnly('log,motion')], [0, 0.5, ['log', 'motion']]);
});
