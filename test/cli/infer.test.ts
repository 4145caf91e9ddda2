/** `premotor infer` with a recording policy: pictures, cameras, options passed on, files written, folders protected. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import t, { type Test } from 'tap';
import { actionsCsv, channelName, shortest } from '../../src/cli/actions.js';
import { runCli } from '../../src/cli/main.js';
import { assignPictures, loadPicture } from '../../src/cli/pictures.js';
import { type FakeCalls, fakeContext, fakePolicy, newCalls, smallJob } from './fakes.js';

const cameras = ['observation.images.cam_high', 'observation.images.cam_wrist'];

/** A folder with a job and two pictures. */
async function prepare(t: Test, job: Record<string, unknown> = {}): Promise<{ dir: string; argv: string[]; out: string }> {
  const dir = t.testdir({ 'job.json': JSON.stringify(smallJob({ prompt: ' from the job ', ...job })) });
  const paint = (background: string, name: string) => sharp({ create: { width: 6, height: 4, channels: 3, background } }).toFile(join(dir, name));
  await paint('#ff0000', 'high.png');
  await paint('#0000ff', 'wrist.webp');
  const pictures = [`cam_high=${join(dir, 'high.png')}`, `${cameras[1]}=${join(dir, 'wrist.webp')}`];
  const out = join(dir, 'out');
  return { dir, out, argv: ['infer', '--checkpoint', join(dir, 'ckpt'), '--job', join(dir, 'job.json'), '--out', out, '--image', ...pictures] };
}

async function run(argv: string[], calls: FakeCalls): Promise<{ code: number; out: string; err: string }> {
  const { out, err, context } = fakeContext({ loadPolicy: fakePolicy(calls) });
  const code = await runCli(argv, context);
  return { code, out: out.text, err: err.text };
}

t.test('one chunk: every option reaches the policy and every file is written', async (t) => {
  const { argv, out, dir } = await prepare(t);
  const calls = newCalls();
  const options = ['--precision', 'bf16', '--kv-cache', 'int8', '--device', 'cpu', '--seed', '18446744073709551615', '--threads', '3', '--isolate'];
  const { code, out: text, err } = await run([...argv, ...options, '--video-steps', '2', '--action-steps', '4'], calls);
  t.equal(code, 0, err);
  t.match(calls.load[0], {
    checkpoint: join(dir, 'ckpt'),
    precision: 'bf16',
    kvCache: 'int8',
    device: 'cpu',
    threads: 3,
    isolate: true,
    job: { infer_mode: 'server' },
  });
  t.same(calls.prompts, [' from the job ']);
  const [request] = calls.predictions;
  t.match(request, { seed: 2n ** 64n - 1n, videoSteps: 2, actionSteps: 4 });
  t.same(
    request?.obs?.map(({ camera, width, height }) => [camera, width, height]),
    cameras.map((camera) => [camera, 6, 4]),
  );
  t.same([...(request?.obs?.[0]?.data.subarray(0, 3) ?? [])], [255, 0, 0]);
  t.equal(calls.closed, 1);
  const csv = readFileSync(join(out, 'actions.csv'), 'utf8').trimEnd().split('\n');
  t.equal(csv[0], 'chunk,frame,step,left_x,left_gripper');
  t.same(csv.slice(1, 5), ['0,0,0,0.1,100.1', '0,0,1,1.1,101.1', '0,0,2,2.1,102.1', '0,1,0,10.1,110.1']);
  t.equal(csv.length, 7);
  const actions = JSON.parse(readFileSync(join(out, 'actions.json'), 'utf8')) as Record<string, unknown>;
  t.match(actions, { prompt: 'from the job', seed: '18446744073709551615', columns: ['left_x', 'left_gripper'], paddingSteps: 3, shape: [2, 2, 3] });
  t.match(JSON.parse(readFileSync(join(out, 'timing.json'), 'utf8')), {
    unit: 'milliseconds',
    backend: 'fake',
    chunks: [{ videoPasses: 6, videoMs: 60 }],
  });
  t.same(readdirSync(join(out, 'frames')), ['0000.png', '0001.png', '0002.png', '0003.png', '0004.png']);
  const meta = await sharp(join(out, 'imagined.gif'), { animated: true }).metadata();
  t.same([meta.pages, meta.width, meta.pageHeight, meta.delay], [5, 32, 32, [80, 80, 80, 80, 80]]);
  t.match(text, /actions\.csv/);
  t.match(text, /the first 3 actions are padding/);
  t.match(err, /warning: a warning/);
  t.match(err, /denoising video 6\/6/);
});

t.test('more chunks run a server job open loop and say so', async (t) => {
  const { argv, out } = await prepare(t);
  const calls = newCalls();
  const { code, out: text } = await run([...argv, '--chunks', '3', '--prompt', 'given', '--json', '--format', 'png', '--fps', '5'], calls);
  t.equal(code, 0);
  t.match(calls.load[0], { job: { infer_mode: 'i2va' } });
  t.same(calls.prompts, ['given']);
  t.same(
    calls.predictions.map(({ obs }) => obs !== undefined),
    [true, false, false],
    'pictures go with the first prediction only',
  );
  t.same(calls.decodedFrames, [6], 'one film of all chunks');
  const document = JSON.parse(text) as { notes: string[]; chunks: { frameIndex: number }[]; video: { frames: number }; files: { animation: string } };
  t.match(document.notes, [/run as "i2va".*open loop/]);
  t.same(
    document.chunks.map((chunk) => chunk.frameIndex),
    [0, 2, 4],
  );
  t.equal(document.video.frames, 21);
  t.equal(document.files.animation, join(out, 'imagined.png'));
  const lines = readFileSync(join(out, 'actions.csv'), 'utf8').trimEnd().split('\n');
  t.equal(lines.length, 1 + 3 * 6);
  t.match(lines[7], /^1,2,0,2000\.1,/);
  t.match(lines[18], /^2,5,2,/);
});

t.test('an i2va job is left as it is', async (t) => {
  const { argv } = await prepare(t, { infer_mode: 'i2va' });
  const calls = newCalls();
  const { out } = await run([...argv, '--chunks', '2', '--json'], calls);
  t.match(JSON.parse(out), { notes: [] });
});

t.test('a folder with something in it is not written to, unless forced', async (t) => {
  const { argv, out } = await prepare(t);
  mkdirSync(join(out, 'frames'), { recursive: true });
  writeFileSync(join(out, 'mine.txt'), 'keep');
  writeFileSync(join(out, 'frames', '0099.png'), 'old');
  writeFileSync(join(out, 'frames', 'notes.md'), 'keep');
  writeFileSync(join(out, 'imagined.webp'), 'old');
  const calls = newCalls();
  const refused = await run(argv, calls);
  t.equal(refused.code, 1);
  t.match(refused.err, /^error OUT_NOT_EMPTY: .*3 entries \(frames, imagined\.webp, mine\.txt\).*Nothing was overwritten/);
  t.match(refused.err, /--force/);
  t.equal(calls.load.length, 0, 'refused before anything is loaded');
  t.equal((await run([...argv, '--force'], calls)).code, 0);
  t.equal(readFileSync(join(out, 'mine.txt'), 'utf8'), 'keep');
  t.ok(existsSync(join(out, 'frames', 'notes.md')));
  t.notOk(existsSync(join(out, 'frames', '0099.png')), 'frames of an earlier, longer run are gone');
  t.notOk(existsSync(join(out, 'imagined.webp')));
  const file = await run(
    argv.map((word) => (word === out ? join(out, 'mine.txt') : word)),
    calls,
  );
  t.match(file.err, /^error OUT_NOT_EMPTY: .*is a file/);
});

t.test('no instruction, unreadable pictures and missing cameras are errors before loading', async (t) => {
  const { argv, dir } = await prepare(t, { prompt: undefined });
  const calls = newCalls();
  t.match(await run(argv, calls), { code: 2, err: /Expected an instruction, found none/ });
  writeFileSync(join(dir, 'high.png'), 'not a picture');
  t.match(await run([...argv, '--prompt', 'x'], calls), {
    code: 1,
    err: /^error IMAGE_UNREADABLE: The picture .*high\.png of camera observation\.images\.cam_high/,
  });
  t.match(await run(argv.slice(0, -1).concat('--prompt', 'x'), calls), { code: 2, err: /add --image observation\.images\.cam_wrist=FILE/ });
  t.equal(calls.load.length, 0);
});

t.test('cameras are matched by key or last part', async (t) => {
  t.same(Object.fromEntries(assignPictures(['cam_wrist=w.png', 'observation.images.cam_high=h.png'], cameras)), {
    [cameras[0] as string]: 'h.png',
    [cameras[1] as string]: 'w.png',
  });
  t.same(Object.fromEntries(assignPictures(['view.png'], ['only'])), { only: 'view.png' });
  t.same(Object.fromEntries(assignPictures(['a=b.png'], ['only'])), { only: 'a=b.png' }, 'an equals sign may be part of a file name');
  t.throws(() => assignPictures(['high.png', 'cam_wrist=w.png'], cameras), { code: 'USAGE', message: /without a name/ });
  t.throws(() => assignPictures(['cam_low=h.png'], cameras), { code: 'USAGE', message: /"cam_low"/ });
  t.throws(() => assignPictures(['cam_high=a', 'cam_high=b', 'cam_wrist=c'], cameras), { code: 'USAGE', message: /has a picture already/ });
  t.throws(() => assignPictures(['x=a'], ['left.x', 'right.x']), { code: 'USAGE' }, 'an ambiguous name is refused');
});

t.test('pictures of every kind become upright 8-bit RGB', async (t) => {
  const dir = t.testdir();
  const raw = Buffer.from([255, 0, 0, 0, 255, 0]);
  const pair = () => sharp(raw, { raw: { width: 2, height: 1, channels: 3 } });
  const load = async (name: string) => loadPicture('cam', join(dir, name));
  await pair().png().toFile(join(dir, 'a.png'));
  t.match(await load('a.png'), { camera: 'cam', width: 2, height: 1, data: new Uint8Array(raw) });
  await pair().withMetadata({ orientation: 6 }).png().toFile(join(dir, 'turned.png'));
  t.match(await load('turned.png'), { width: 1, height: 2, data: new Uint8Array(raw) });
  await pair().ensureAlpha(0.5).png().toFile(join(dir, 'alpha.png'));
  t.match(await load('alpha.png'), { width: 2, data: new Uint8Array(raw) });
  await sharp(Buffer.from([7, 200]), { raw: { width: 2, height: 1, channels: 1 } })
    .toColourspace('b-w')
    .png()
    .toFile(join(dir, 'grey.png'));
  t.match(await load('grey.png'), { width: 2, data: Uint8Array.of(7, 7, 7, 200, 200, 200) });
  await pair().toColourspace('rgb16').png().toFile(join(dir, 'deep.png'));
  t.match(await load('deep.png'), { width: 2, data: new Uint8Array(raw) });
  await t.rejects(load('none.png'), { code: 'IMAGE_UNREADABLE' });
});

t.test('columns are named by meaning', async (t) => {
  const names = Array.from({ length: 30 }, (_, id) => channelName(id, 30));
  t.same(names.slice(0, 9), ['left_x', 'left_y', 'left_z', 'left_quat0', 'left_quat1', 'left_quat2', 'left_quat3', 'right_x', 'right_y']);
  t.same(
    [names[13], names[14], names[20], names[21], names[27], names[28], names[29]],
    ['right_quat3', 'left_joint0', 'left_joint6', 'right_joint0', 'right_joint6', 'left_gripper', 'right_gripper'],
  );
  t.equal(new Set(names).size, 30);
  t.equal(channelName(3, 8), 'channel3', 'another layout is only numbered');
});

t.test('CSV numbers read back as the same float32', async (t) => {
  let state = 1;
  for (let i = 0; i < 2000; i++) {
    state = Math.imul(state, 1664525) + 1013904223;
    const bits = new Uint32Array([state]);
    const value = new Float32Array(bits.buffer)[0] ?? 0;
    if (Number.isFinite(value) && !Object.is(Math.fround(Number(shortest(value))), value)) t.fail(`${value} was written as ${shortest(value)}`);
  }
  t.equal(shortest(Math.fround(0.1)), '0.1');
  t.equal(shortest(Number.NaN), 'NaN');
  t.equal(actionsCsv(['a'], [{ chunk: 0, frame: 1, step: 2, values: [Math.fround(1e-7)] }]), 'chunk,frame,step,a\n0,1,2,1e-7\n');
});
