/**
 * The flight recorder: what it records and of what type, the window that survives a fault, the disk budget, disks that refuse, what a process
 * that died left behind, and that it never takes more memory or files than it may.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import protobuf from 'protobufjs';
import sharp from 'sharp';
import t from 'tap';
import { PremotorError } from '../../src/errors.js';
import { toTensor } from '../../src/policy/tensor.js';
import { contentsOf } from '../../src/recording/contents.js';
import { RecordingFolder } from '../../src/recording/folder.js';
import { type McapMessage, McapReader } from '../../src/recording/mcap-reader.js';
import { openRecorder } from '../../src/recording/recorder.js';
import { recordIn } from '../../src/recording/replay-source.js';
import { type SavedRecording, saveRecording } from '../../src/recording/save.js';
import { TOPICS } from '../../src/recording/schemas.js';
import { compressedCall } from '../../src/replay/record.js';
import {
  aboutOf,
  CAMERAS,
  configOf,
  EPOCH_NS,
  FakeControl,
  fullAfter,
  JOINT_NAMES,
  readAll,
  recordingsIn,
  START_NS,
  sampleOf,
  Watched,
} from './support.js';

/** Another user than root. */
const NOBODY = 65_534;

const of = (messages: readonly McapMessage[], topic: string): readonly Record<string, unknown>[] =>
  messages.filter((one) => one.topic === topic).map((one) => ({ ...one.decode() }));

/** An episode with everything in it. */
async function busy(watched: Watched): Promise<void> {
  const { observer } = watched;
  const latents = toTensor(
    Float32Array.from({ length: 48 * 2 * 4 }, (_, at) => at / 3),
    [1, 48, 2, 2, 2],
  );
  const tell = (event: Parameters<typeof observer.event>[0]): void => observer.event(event, watched.timeNs);
  tell({ type: 'cycle', event: { type: 'started', prompt: 'touch', chunks: 6, observation: [], positionsRad: Float64Array.of(1, 2, 3) } });
  watched.call({ method: 'reset', options: { prompt: 'touch' } });
  for (let chunk = 0; chunk < 3; chunk++) {
    watched.see();
    watched.call({
      method: 'predict',
      options: { seed: 7n, videoSteps: 3 },
      actions: new Float32Array(64).fill(chunk),
      shape: [4, 2, 8],
      frameIndex: chunk,
    });
    const timing = { encodeMs: 1, videoMs: 2, actionMs: 3, commitMs: 4, imagineMs: 5, totalMs: 15, videoPasses: 6, actionPasses: 7 };
    tell({ type: 'cycle', event: { type: 'predicted', chunk, frameIndex: 2 * chunk, latents, timing, assumed: latents } });
    watched.move(320);
    tell({ type: 'cycle', event: { type: 'executed', chunk, frameIndex: 2 * chunk, actions: new Float32Array(64), moments: [], clampedKnots: 3 } });
    tell({ type: 'cycle', event: { type: 'remembered', frameIndex: 2 * chunk, latents } });
    watched.call();
    const times = {
      predictMs: 11,
      executeMs: 12,
      commitMs: 13,
      frameAgeMsMax: 1,
      frameSkewMsMax: 2,
      timing,
      rung: { index: 1, fits: true, expectedMs: 10 },
    };
    const report = { chunk, frameIndex: 2 * chunk, knots: 16, clampedKnots: 3, delayKnots: 1, assumedFrames: 0, ...times };
    tell({ type: 'cycle', event: { type: 'committed', chunk, report } });
  }
  tell({ type: 'warning', error: new PremotorError('JOURNAL_FULL', 'The journal is full.') });
  const frame = { camera: 'imagined', width: 16, height: 6, data: new Uint8Array(16 * 6 * 3), capturedAtNs: 0n };
  tell({ type: 'imagined', frame, timeNs: START_NS });
}

const require = createRequire(import.meta.url);
/** A decoder of a schema by protobufjs, which knows nothing of ours. */
function independent(schemaData: Uint8Array, name: string): protobuf.Type {
  const { FileDescriptorSet } = require('protobufjs/ext/descriptor') as { FileDescriptorSet: protobuf.Type };
  const root = protobuf.Root as unknown as { fromDescriptor(set: unknown): protobuf.Root };
  const types = root.fromDescriptor(FileDescriptorSet.decode(schemaData));
  types.resolveAll();
  return types.lookupType(name);
}

t.test('a full recording has everything, each of its type', async (t) => {
  const dir = join(t.testdir(), 'deep', 'flight');
  const watched = await Watched.open(configOf(dir, { mode: 'full' }));
  await busy(watched);
  await watched.stop();
  t.same(watched.warnings, []);
  const [file = ''] = recordingsIn(dir);
  t.same(watched.notices, [`Flight recorder: ${file}`]);
  const { messages, state } = await readAll(file);
  t.ok(state.isComplete);
  t.equal(state.damageCount, 0);
  const types = new Map<string, protobuf.Type>();
  for (const { channel, data } of messages) {
    const type = types.get(channel.schema) ?? independent(channel.schemaData, channel.schema);
    types.set(channel.schema, type);
    if (type.verify(type.toObject(type.decode(data))) !== null) t.fail(`${channel.topic} is no ${channel.schema}`);
  }
  const topics = [...Object.values(TOPICS).map(({ topic }) => topic), ...CAMERAS.map((camera) => `/camera/${camera}`)];
  const missing = topics.filter((topic) => !['/state', '/faults'].includes(topic) && of(messages, topic).length === 0);
  t.same(missing, [], 'every topic has messages');
  const motion = messages.filter(({ topic }) => topic === '/motion');
  t.equal(motion.length, 960, 'every sample');
  motion.forEach((one, step) => {
    const sample = sampleOf(START_NS + BigInt(step + 1) * 1_000_000n, step);
    const { robot_time_ns: timeNs, setpoint_rad: setpoint, position_rad: position, velocity_rad_per_s: velocity } = one.decode();
    const same =
      timeNs === sample.timeNs &&
      one.logTimeNs === EPOCH_NS + BigInt(step + 1) * 1_000_000n &&
      [setpoint, position, velocity].join() === [sample.setpointRad, sample.positionsRad, sample.velocitiesRadPerS].join();
    if (!same) t.fail(`sample ${step}`);
  });
  t.equal(of(messages, '/joint_states').length, 48, '50 Hz');
  t.match(of(messages, '/joint_states')[0], { joints: [{ name: 'yaw', position: 0.25, velocity: 0.5 }, {}, { name: 'elbow' }] });
  t.match(of(messages, '/about'), [{ joints: JOINT_NAMES, seed: 7, epoch_ns: EPOCH_NS, configuration_json: '{"robot":{"type":"sim"}}' }]);
  t.match(of(messages, '/policy/calls')[1], { method: 'predict', seed: '7', video_steps: 3, cache_checksum: 'abc', cache_committed: 2 });
  const kinds = of(messages, '/policy/latents').map(({ kind }) => kind);
  t.same(kinds.slice(0, 3), ['predicted', 'assumed', 'remembered']);
  t.match(of(messages, '/policy/executed')[2], { chunk: 2, clamped_knots: 3, actions: { shape: [4, 2, 8] } });
  t.match(of(messages, '/policy/timing')[1], { chunk: 1, predict_ms: 11, rung: 1, video_passes: 6 });
  const texts = of(messages, '/log').map(({ message }) => message);
  t.same(texts, ['started: touch', 'JOURNAL_FULL: The journal is full.']);
  t.match(of(messages, '/status')[0], {
    stream: 'following',
    counts: [{ name: 'cycles', value: 12 }, {}],
    temperatures_c: [{ name: 'motor', value: 41.5 }],
  });
  const pictures = of(messages, `/camera/${CAMERAS[0]}`);
  t.equal(pictures.length, 3);
  t.match(await sharp(pictures[0]?.['data'] as Uint8Array).metadata(), { format: 'jpeg', width: 8, height: 6 });
  const record = await recordIn(file);
  t.match(record, { end: 'closed', header: { seed: 7, prompt: 'touch the red button' }, calls: { length: 7 } });
  t.same(record.calls[1]?.actions, new Float32Array(64).fill(0));
});

t.test('a window becomes no recording after an episode without a fault, and one after an episode with', async (t) => {
  const dir = t.testdir();
  const fine = await Watched.open(configOf(dir, { window_s: 2 }));
  await busy(fine);
  t.equal(readdirSync(dir).length, 1, 'while it runs there is the window alone');
  await fine.stop();
  t.match(readdirSync(dir), [/^ended-/]);
  t.same([fine.notices, fine.warnings], [[], []]);
  const broken = await Watched.open(configOf(dir, { window_s: 2 }));
  broken.call({ method: 'reset', options: { prompt: 'x' } });
  for (let second = 0; second < 30; second++) {
    broken.move(500);
    await broken.flushed();
  }
  broken.fail('ENGINE_DIED');
  await broken.stop({ outcome: 'failed', error: new PremotorError('ENGINE_DIED', 'died') });
  const [file = ''] = recordingsIn(dir);
  t.match(file, /fault-\d{8}T\d{6}Z-ENGINE_DIED\.mcap$/);
  t.match(broken.notices, [new RegExp(`the last (2\\.0|1\\.\\d) s are in ${file}`)]);
  t.same(readdirSync(dir).length, 1);
  const { messages, state } = await readAll(file);
  t.ok(state.isComplete);
  const steps = messages.filter(({ topic }) => topic === '/motion').map(({ logTimeNs }) => Number(logTimeNs - EPOCH_NS) / 1e6);
  t.equal(steps.at(-1), 15_000);
  t.ok((steps[0] ?? 0) >= 13_000 && (steps[0] ?? 0) < 13_600, `from ${steps[0]}`);
  t.same(
    steps,
    Array.from(steps, (_, at) => (steps[0] ?? 0) + at),
    'without a gap',
  );
  t.match(of(messages, '/faults'), [{ code: 'ENGINE_DIED', state: 'running' }]);
  t.equal(of(messages, '/about').length, 1, 'with what the run was');
  const early = messages.filter(({ topic }) => topic === '/about' || topic === '/policy/replay');
  t.ok(early.every(({ logTimeNs, publishTimeNs }) => publishTimeNs <= logTimeNs));
  t.match(await recordIn(file), { end: 'closed', calls: [{ method: 'reset' }] }, 'and the replay from its beginning');
});

t.test('what is told before the beginning is kept: the call that restores an interrupted episode', async (t) => {
  const dir = t.testdir();
  const observer = await openRecorder(configOf(dir, { mode: 'full' }), { onNotice: () => undefined, onWarning: (error) => t.fail(error.message) });
  const call = { method: 'restore', options: { prompt: 'x', commits: [] }, checksum: 'abc' } as const;
  const control = new FakeControl();
  observer?.event({ type: 'call', note: { call, bytes: compressedCall(call), cache: control.cache() } }, START_NS);
  await observer?.begin(aboutOf(), control);
  await observer?.end(undefined);
  await observer?.close();
  const [file = ''] = recordingsIn(dir);
  t.match(await recordIn(file), { end: 'closed', calls: [{ method: 'restore', options: { prompt: 'x' } }] });
  t.match(of((await readAll(file)).messages, '/policy/calls'), [{ number: 1, method: 'restore' }]);
});

t.test('a fault before the episode began is saved when the recorder is closed', async (t) => {
  const dir = t.testdir();
  const watched = await Watched.open(configOf(dir));
  watched.move(10);
  watched.fail('CONTROL_POSE');
  await watched.observer.close();
  await watched.observer.close();
  t.match(recordingsIn(dir), [/fault-.*-CONTROL_POSE\.mcap$/]);
});

t.test('an engine that died and was replaced is saved at once; SIGUSR2 saves the window on demand', async (t) => {
  const dir = t.testdir();
  const before = process.listenerCount('SIGUSR2');
  const watched = await Watched.open(configOf(dir));
  watched.move(300);
  for (const phase of ['died', 'restarted', 'rebuilt'] as const) {
    watched.observer.event({ type: 'recovery', recovery: { phase, elapsedMs: 5, commits: 1 } }, watched.timeNs);
  }
  await watched.noticed(1);
  watched.move(300);
  process.kill(process.pid, 'SIGUSR2');
  await watched.noticed(2);
  await watched.stop();
  const files = recordingsIn(dir);
  t.match(files, [/fault-.*-ENGINE_DIED\.mcap$/, /saved-.*Z\.mcap$/]);
  t.equal(process.listenerCount('SIGUSR2'), before);
  const count = async (file = ''): Promise<number> => of((await readAll(file)).messages, '/motion').length;
  t.same([await count(files[0]), await count(files[1])], [300, 600]);
});

t.test('the disk budget: the oldest recordings go, never the one that is written, never what is not ours', async (t) => {
  const dir = t.testdir({ 'notes.mcap': 'mine', 'full-note.txt': 'mine' });
  const old = (name: string, mib: number, age: number): void => {
    const path = join(dir, name);
    writeFileSync(path, Buffer.alloc(mib * 2 ** 20));
    utimesSync(path, 1_700_000_000 - age, 1_700_000_000 - age);
  };
  old('fault-20260101T000000Z-A.mcap', 1, 1000);
  old('saved-20260101T000001Z.mcap', 1, 500);
  old('full-x-001.mcap', 1, 100);
  const watched = await Watched.open(configOf(dir, { mode: 'full', disk_max_mib: 4 }));
  const used = (): number => recordingsIn(dir).reduce((sum, file) => sum + statSync(file).size, 0);
  let most = 0;
  for (let second = 0; second < 60; second++) {
    watched.move(1000);
    await watched.flushed();
    most = Math.max(most, used());
  }
  await watched.stop();
  t.same(watched.warnings, []);
  t.ok(most <= 4 * 2 ** 20 + 2 * 512 * 1024, `at most ${most} bytes: a chunk above the budget until the next look`);
  t.ok(used() <= 4 * 2 ** 20 + 512 * 1024);
  t.same(
    readdirSync(dir).filter((name) => /^(notes|full-note)/.test(name)),
    ['full-note.txt', 'notes.mcap'],
  );
  t.notOk(existsSync(join(dir, 'fault-20260101T000000Z-A.mcap')));
  const parts = recordingsIn(dir).filter((file) => /full-2026/.test(file));
  t.ok(parts.length > 1 && !parts.some((file) => file.endsWith('-001.mcap')), parts.join());
  for (const file of parts) t.ok((await readAll(file)).state.isComplete);
  t.ok(of((await readAll(parts[0] ?? '')).messages, '/motion').length > 0);
  t.equal(of((await readAll(parts[0] ?? '')).messages, '/about').length, 1, 'every part says what the run is');
  await t.rejects(recordIn(parts[0] ?? ''), { code: 'REPLAY_DAMAGED', found: 'only later ones' }, 'its beginning is gone');
});

t.test('the window stays within its share of the budget', async (t) => {
  const dir = t.testdir();
  const watched = await Watched.open(configOf(dir, { disk_max_mib: 2 }));
  const bytesOf = (name: string): number => (name.endsWith('.mcap') ? statSync(join(dir, name)).size : 0);
  const used = (): number => readdirSync(dir, { recursive: true, encoding: 'utf8' }).reduce((sum, name) => sum + bytesOf(name), 0);
  for (let second = 0; second < 20; second++) {
    watched.move(1000);
    await watched.flushed();
    t.ok(used() <= 2 ** 20 + 512 * 1024, `${used()} bytes`);
  }
  watched.fail('X_Y');
  await watched.stop();
  t.match(watched.notices, [/the last \d\.\d s are in/]);
  t.ok(used() <= 2 * 2 ** 20);
  // Calls that do not fit any more end the replay record, and nothing else.
  const talks = await Watched.open(configOf(dir, { disk_max_mib: 1, mode: 'window' }));
  for (let call = 0; call < 40; call++) talks.call({ options: { obs: [[{ data: crypto.getRandomValues(new Uint8Array(8192)) }]] } });
  talks.move(10);
  talks.fail('Y_Z');
  await talks.stop();
  const file = recordingsIn(dir).find((path) => path.includes('Y_Z')) ?? '';
  const record = await recordIn(file);
  t.match(record, { end: 'full' });
  t.ok(record.calls.length > 5 && record.calls.length < 40, `${record.calls.length} calls`);
  const reader = await McapReader.open(file);
  t.match((await contentsOf(reader)).dropped, { '/policy/replay': 1 });
  await reader.close();
});

t.test('a disk that is full ends the recording with one warning, and what was written can be read', async (t) => {
  for (const mode of ['full', 'window'] as const) {
    const dir = t.testdir();
    const watched = await Watched.open(configOf(dir, { mode }), { openFile: fullAfter(200_000) });
    for (let second = 0; second < 5; second++) {
      watched.move(1000);
      watched.see();
      watched.call();
      await watched.flushed();
    }
    watched.fail('ENGINE_DIED');
    await watched.stop();
    t.match(watched.warnings, [{ code: 'RECORD_WRITE', found: /ENOSPC/ }], mode);
    t.equal(watched.warnings.length, 1);
    if (mode === 'window') continue;
    const { messages } = await readAll(recordingsIn(dir)[0] ?? '');
    t.ok(of(messages, '/motion').length > 100);
  }
});

t.test('a folder that cannot be written is a warning, and the robot goes on without a recording', async (t) => {
  const dir = t.testdir({ file: 'in the way' });
  const warnings: PremotorError[] = [];
  const parts = { onNotice: () => undefined, onWarning: (error: PremotorError) => void warnings.push(error) };
  t.equal(await openRecorder(configOf(join(dir, 'file', 'flight')), parts), undefined);
  t.match(warnings, [{ code: 'RECORD_WRITE' }]);
  t.equal(await openRecorder(configOf(dir, { mode: 'off' }), parts), undefined);
  t.equal(warnings.length, 1);
  const late = await Watched.open(configOf(dir), {
    openFile: async () => {
      throw new Error('EROFS: read-only file system');
    },
  });
  late.move(100);
  late.see();
  await late.stop();
  t.match(late.warnings, [{ code: 'RECORD_WRITE', found: /EROFS/ }]);
});

t.test('what a process that died left behind becomes a recording; that of a living one is left alone', async (t) => {
  const dir = t.testdir();
  const dead = await Watched.open(configOf(dir));
  dead.move(700);
  dead.call({ method: 'reset', options: { prompt: 'x' } });
  await dead.flushed();
  const [window = ''] = readdirSync(dir);
  const living = await Watched.open(configOf(dir), {}, aboutOf({ id: 'another' }));
  t.ok(existsSync(join(dir, window)), 'its process lives');
  await living.stop();
  // Its process is gone: the owner's note is another's.
  writeFileSync(join(dir, window, 'owner.json'), JSON.stringify({ pid: 4_000_000, started: '1', boot: 'before' }));
  mkdirSync(join(dir, 'window-empty-1'));
  mkdirSync(join(dir, 'window-damaged-1'));
  writeFileSync(join(dir, 'window-damaged-1', '000000.mcap'), 'no recording');
  writeFileSync(join(dir, 'window-damaged-1', '000001.mcap'), Buffer.concat([Buffer.from([0x89]), Buffer.from('MCAP0\r\n'), Buffer.alloc(50)]));
  const next = await Watched.open(configOf(dir), {}, aboutOf({ id: 'next' }));
  await next.stop();
  t.same(next.warnings, []);
  const [file = '', ...more] = recordingsIn(dir);
  t.same(more, []);
  t.match(next.notices, [`Flight recorder: the last seconds of a run that was killed are in ${file}`]);
  t.match(file, /rescued-2026-11-30T10-00-00-000Z-\d+\.mcap$/);
  const { messages, state } = await readAll(file);
  t.ok(state.isComplete);
  t.equal(of(messages, '/motion').length, 700);
  t.match(await recordIn(file), { end: 'cut', calls: [{ method: 'reset' }] });
  t.same(readdirSync(dir).length, 1, 'no window is left');
  renameSync(file, join(dir, 'kept'));
  await dead.observer.close();
});

t.test('the window of the episode that ended last can still be kept', async (t) => {
  const dir = t.testdir();
  const save = (): Promise<SavedRecording> => saveRecording(dir, 2 ** 20 * 64, { wait_ms: 50, signal: new AbortController().signal });
  await t.rejects(save(), { code: 'RECORD_NOTHING', file: dir });
  const episode = async (id: string, steps: number, mode: 'window' | 'full' = 'window'): Promise<Watched> => {
    const watched = await Watched.open(configOf(dir, { mode }), {}, aboutOf({ id }));
    watched.call({ method: 'reset', options: { prompt: id } });
    watched.move(steps);
    return watched;
  };
  await (await episode('first', 300)).stop();
  await (await episode('second', 500)).stop();
  t.match(readdirSync(dir), [/^ended-second-/], 'that of the one before is gone');
  const { path, of: whose } = await save();
  t.equal(whose, 'ended');
  t.match(readdirSync(dir), [/^saved-\d{8}T\d{6}Z\.mcap$/]);
  const { messages, state } = await readAll(path);
  t.ok(state.isComplete);
  t.equal(of(messages, '/motion').length, 500);
  t.match(await recordIn(path), { end: 'closed', calls: [{ options: { prompt: 'second' } }] });
  await t.rejects(save(), { code: 'RECORD_NOTHING' }, 'once');
  const failed = await episode('third', 400);
  failed.fail('X_Y');
  await failed.stop();
  t.match(readdirSync(dir), [/^fault-/, /^saved-/], 'what a fault has saved is not kept twice');
  await (await episode('fourth', 100, 'full')).stop();
  t.match(readdirSync(dir), [/^fault-/, /^full-/, /^saved-/]);
  await (await episode('fifth', 50)).stop();
  const faulty = await episode('sixth', 50);
  faulty.fail('X_Z');
  await faulty.stop();
  await t.rejects(save(), { code: 'RECORD_NOTHING' }, 'the episode that ended last has its recording');
  await (await episode('seventh', 5000)).stop();
  const small = await RecordingFolder.open(dir, 1);
  await small.makeRoom(0);
  t.same(readdirSync(dir), [], 'it goes first when room runs out, and then recordings');
});

t.test('a process that does not keep what it records is told', async (t) => {
  const dir = t.testdir();
  const child = spawn(process.execPath, ['-e', `process.on('SIGUSR2', () => undefined); setInterval(() => undefined, 1000); console.log('up');`]);
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  const stat = readFileSync(`/proc/${child.pid}/stat`, 'utf8');
  const started = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  mkdirSync(join(dir, 'window-x-1'));
  writeFileSync(join(dir, 'window-x-1', 'owner.json'), JSON.stringify({ pid: child.pid, started, boot }));
  const { signal } = new AbortController();
  await t.rejects(saveRecording(dir, 2 ** 20, { wait_ms: 150, signal }), { code: 'RECORD_SAVE', found: 'no recording after 0.15 s' });
  t.equal(child.exitCode, null);
  await t.rejects(saveRecording(dir, 2 ** 20, { wait_ms: 150, signal: AbortSignal.abort() }), { code: 'ABORTED' });
  const absent = join(dir, 'absent');
  await t.rejects(saveRecording(absent, 2 ** 20, { wait_ms: 150, signal }), { code: 'RECORD_NOTHING', file: absent });
  t.notOk(existsSync(absent), 'a folder made by another user would be in the way of the recorder');
});

t.test('what root keeps belongs to whom the folder belongs to', { skip: process.getuid?.() === 0 ? false : 'SKIPPED: not root' }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'premotor-owner-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const watched = await Watched.open(configOf(dir));
  watched.call({ method: 'reset', options: { prompt: 'x' } });
  watched.move(100);
  await watched.stop();
  for (const name of ['', ...readdirSync(dir, { recursive: true, encoding: 'utf8' })]) chownSync(join(dir, name), NOBODY, NOBODY);
  const { path } = await saveRecording(dir, 2 ** 26, { wait_ms: 50, signal: new AbortController().signal });
  const { uid, gid } = statSync(path);
  t.same([uid, gid, process.geteuid?.()], [NOBODY, NOBODY, 0]);
  t.equal(readdirSync(dir).length, 1);
});

t.test('too much at once is dropped and counted, and nothing waits', async (t) => {
  const dir = t.testdir();
  const watched = await Watched.open(configOf(dir, { mode: 'full' }));
  const big = { camera: CAMERAS[0] ?? '', width: 2000, height: 2000, data: new Uint8Array(12_000_000), capturedAtNs: START_NS };
  for (let one = 0; one < 12; one++) watched.observer.event({ type: 'frames', frames: [big] }, watched.timeNs);
  watched.observer.event({ type: 'frames', frames: [{ ...big, camera: 'unknown', data: new Uint8Array(3), width: 1, height: 1 }] }, watched.timeNs);
  watched.observer.event({ type: 'frames', frames: [{ ...big, data: new Uint8Array(5) }] }, watched.timeNs);
  watched.move(20_000);
  await watched.stop();
  const reader = await McapReader.open(recordingsIn(dir)[0] ?? '');
  const contents = await contentsOf(reader);
  await reader.close();
  const count = (topic: string): number => contents.topics.find((one) => one.topic === topic)?.messages ?? 0;
  t.match(contents.dropped, { '/camera/unknown': 1, [`/camera/${CAMERAS[0]}`]: 8, '/motion': 20_000 - count('/motion') });
  t.equal(count(`/camera/${CAMERAS[0]}`), 5, 'five of 12 MB wait at most; one has not as many bytes as it says');
  t.ok(count('/motion') >= 16_384, `${count('/motion')} samples`);
});
