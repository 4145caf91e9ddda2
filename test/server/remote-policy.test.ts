/** The remote policy: the same episode as the local one through a real server, every way in which a server can misbehave, and that the arm holds. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type WebSocket, WebSocketServer } from 'ws';
import { ControlCycle } from '../../src/control/cycle.js';
import type { Job, Progress } from '../../src/policy/contract.js';
import { play } from '../../src/replay/player.js';
import { RecordWriter, readRecord } from '../../src/replay/record.js';
import { RecordingPolicy } from '../../src/replay/recording-policy.js';
import { decode, type Encodable, encode, type WireMap } from '../../src/server/msgpack.js';
import { arrayOf, NdArray } from '../../src/server/ndarray.js';
import { type RemoteOptions, RemotePolicy } from '../../src/server/remote-policy.js';
import { SIM_JOB } from '../../src/sim/job.js';
import { type ActionAt, FakeCameras, FakePolicy, FakeRobot } from '../control/fakes.js';
import { fakeMoment, playEpisode } from '../support/fake-model.js';
import { errorOf } from '../support/fixtures.js';
import { JOB, StrictModel, serve } from './support.js';

async function open(t: Test, url: string, options: Partial<RemoteOptions> = {}): Promise<RemotePolicy> {
  const policy = await RemotePolicy.open({ url, job: JOB, warnings: ['from the job'], reply_timeout_ms: 20_000, ...options });
  t.teardown(() => policy.close());
  return policy;
}

t.test('an episode through a server is the local one, bit by bit', async (t) => {
  const { models, url } = await serve(t);
  const remote = await open(t, url);
  const local = new StrictModel();
  t.same(await playEpisode(remote, 4), await playEpisode(local, 4));
  t.same(remote.cache, local.cache);
  t.same(models[0]?.calls, local.calls);
  t.same(models[0]?.seeds, [5n, 5n, 5n, 5n]);
  t.match(remote.info, { checkpointHash: 'fake', actionShape: [3, 2, 4], latentShape: [48, 2, 2, 2], precision: 'f32', warnings: ['from the job'] });
  t.equal(remote.info.backend, `server ${url}: fake`);
  t.ok(remote.isPremotor);
  const answers = [remote, local].map(async (policy) => {
    await policy.reset({ prompt: 'again' });
    const chunk = await policy.predict({ obs: fakeMoment(3, JOB), seed: 2, videoSteps: 3 });
    const { latents, frameIndex } = await policy.commit({ obs: [1, 2, 3, 4].map((one) => fakeMoment(one, JOB)), actions: chunk.actions });
    return { actions: chunk.actions, of: chunk.frameIndex, latents: [...latents], shape: latents.shape, timing: chunk.timing, frameIndex };
  });
  const [far, near] = await Promise.all(answers);
  t.same({ ...far, frameIndex: 0 }, { ...near, frameIndex: 0 });
  t.equal(far?.frameIndex, 2);
  t.same(models[0]?.unchecked, []);
});

t.test('a record of an episode through a server is replayed here, bit by bit', async (t) => {
  const { url } = await serve(t);
  const remote = await open(t, url);
  const { checkpointHash, precision, kvCache, device, backend, threads } = remote.info;
  const about = {
    prompt: 'a',
    seed: 5,
    checkpoint: 'c',
    checkpointHash,
    job: { ...JOB },
    precision,
    kvCache,
    device,
    backend,
    threads,
    configuration: {},
  };
  const file = join(t.testdir(), 'episode.replay');
  const recording = new RecordingPolicy(remote, await RecordWriter.create(file, about, { onWarning: (error) => t.fail(error.message) }));
  await playEpisode(recording, 3);
  await recording.close();
  const outcome = await play(await readRecord(file), new StrictModel());
  t.match(outcome, { predictions: 3, commits: 3, valuesDifferent: 0, callsDifferent: 0, first: null });
});

t.test('what the protocol has no request for is refused by name, and changes nothing', async (t) => {
  const { models, url } = await serve(t);
  const remote = await open(t, url);
  await remote.reset({ prompt: 'a' });
  await remote.predict({ obs: fakeMoment(0, JOB) });
  const before = models[0]?.calls.length;
  const refused: [string, () => Promise<unknown>][] = [
    ['predictNext', () => remote.predictNext()],
    ['encoderState', () => remote.encoderState()],
    ['restore', () => remote.restore()],
    ['occupy', () => remote.occupy()],
    ['decode', () => remote.decode()],
    ['noise', () => remote.predict({ noise: {} })],
    ['trace', () => remote.predict({ trace: true })],
    ['guidance', () => remote.predict({ guidance: false })],
    ['videoExecStep', () => remote.predict({ videoExecStep: 1 })],
    ['inpaint', () => remote.predict({ inpaint: { actions: new Float32Array(24), weights: new Float32Array(8) } })],
    ['trace', () => remote.reset({ prompt: 'a', trace: true })],
  ];
  for (const [field, call] of refused) t.match(await errorOf(call()), { code: 'REMOTE_UNSUPPORTED', field });
  const wrong: [string, () => Promise<unknown>][] = [
    ['FRAME_INVALID', () => remote.predict({ obs: fakeMoment(0, SIM_JOB) })],
    ['FRAME_INVALID', () => remote.commit({ obs: [fakeMoment(0, JOB)], actions: new Float32Array(24) })],
    ['ACTIONS_INVALID', () => remote.commit({ obs: [], actions: new Float32Array(11) })],
    ['ACTIONS_INVALID', () => remote.commit({ obs: [], actions: new Float32Array(12).fill(Number.NaN) })],
    ['ARGUMENT_INVALID', () => remote.predict({ seed: -1 })],
    ['ARGUMENT_INVALID', () => remote.predict({ seed: 1n << 60n })],
    ['ARGUMENT_INVALID', () => remote.reset({ prompt: 3 as unknown as string })],
  ];
  for (const [code, call] of wrong) t.equal((await errorOf(call())).code, code);
  t.equal(models[0]?.calls.length, before, 'the server was asked nothing');
  t.ok(await remote.predict({ obs: fakeMoment(0, JOB) }), 'and the episode goes on');
  await remote.close();
  t.equal((await errorOf(remote.predict())).code, 'CLOSED');
});

t.test('calls before there is an episode', async (t) => {
  const { url } = await serve(t);
  const remote = await open(t, url);
  t.equal((await errorOf(remote.predict({ obs: fakeMoment(0, JOB) }))).code, 'NO_EPISODE');
  await remote.reset({ prompt: 'a' });
  t.equal((await errorOf(remote.predict())).code, 'OBS_REQUIRED');
  t.equal((await errorOf(remote.commit({ obs: [], actions: new Float32Array(12) }))).code, 'OBS_REQUIRED');
});

/** What a server that is no premotor does with each request; `number` counts them from 1. */
type Behaviour = (socket: WebSocket, request: WireMap, number: number) => void;

interface Scripted {
  readonly url: string;
  readonly requests: WireMap[];
  readonly http: Server;
}

const action = (shape = [3, 2, 4]): Encodable => arrayOf(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5), shape);
/** The protocol as LingBot-VA's server speaks it. */
const proper: Behaviour = (socket, request) => {
  const isInfer = !request.has('reset') && !request.has('compute_kv_cache');
  socket.send(encode({ ...(isInfer ? { action: action() } : {}), server_timing: { infer_ms: 12.5 } }));
};

async function scripted(t: Test, behave: Behaviour, metadata: Encodable | string | undefined = {}, autoPong = true): Promise<Scripted> {
  const requests: WireMap[] = [];
  const http = createServer();
  const websockets = new WebSocketServer({ server: http, autoPong });
  websockets.on('connection', (socket) => {
    if (metadata !== undefined) socket.send(typeof metadata === 'string' ? metadata : encode(metadata));
    socket.on('message', (data: Buffer) => {
      requests.push(decode(data) as WireMap);
      behave(socket, requests.at(-1) as WireMap, requests.length);
    });
  });
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    for (const socket of websockets.clients) socket.terminate();
    http.closeAllConnections();
    http.close();
  });
  return { url: `ws://127.0.0.1:${(http.address() as AddressInfo).port}`, requests, http };
}

t.test('a server that is no premotor is spoken to as its own clients do', async (t) => {
  const { url, requests } = await scripted(t, proper);
  const remote = await open(t, url);
  t.notOk(remote.isPremotor);
  t.match(remote.info.warnings, ['from the job', /draws its own noise/]);
  await playEpisode(remote, 2);
  t.same(
    requests.map((one) => [...one.keys()].join(' ')),
    ['reset prompt', 'obs', 'obs compute_kv_cache imagine state', 'obs', 'obs compute_kv_cache imagine state'],
  );
  const [, first, commit, again] = requests;
  t.same([...((first as WireMap).get('obs') as WireMap).keys()], [...JOB.obs_cam_keys]);
  t.same(again?.get('obs'), first?.get('obs'), 'the first pictures come again');
  t.match(commit?.get('state'), { dtype: '<f4', shape: [3, 2, 4] });
  await remote.reset({ prompt: 'a' });
  const chunk = await remote.predict({ obs: fakeMoment(0, JOB) });
  t.match(chunk.timing, { totalMs: 12.5 });
  t.same(chunk.latents.shape, [1, 0, 2, 6, 12], 'nothing is known of its latents');
  t.match(await errorOf(remote.predict({ videoSteps: 2 })), { code: 'REMOTE_UNSUPPORTED', field: 'videoSteps' });
});

const premotor = {
  server: 'premotor',
  version: '0',
  cameras: [...JOB.obs_cam_keys],
  action_shape: [3, 2, 4],
  latent_shape: [48, 2, 2, 2],
  checkpoint: 'c',
  untrained: true,
  precision: 'f32',
  kv_cache: 'f32',
  backend: 'b',
  threads: 1,
  parameters: 1,
};

t.test('a server that cannot be used is refused before anything moves', async (t) => {
  const cases: [string, Encodable | string, object][] = [
    ['text first', 'Traceback', { code: 'REMOTE_ERROR', found: 'Traceback' }],
    ['a list first', [1], { code: 'REMOTE_REPLY' }],
    ['other cameras', { ...premotor, cameras: ['a'] }, { code: 'REMOTE_MISMATCH', field: 'job.obs_cam_keys' }],
    ['other chunks', { ...premotor, action_shape: [3, 4, 4] }, { code: 'REMOTE_MISMATCH', found: '3 x 4 x 4' }],
    ['another version', { ...premotor, latent_shape: [1] }, { code: 'REMOTE_REPLY', found: /metadata\.latent_shape/ }],
  ];
  for (const [what, metadata, expected] of cases) {
    const { url } = await scripted(t, proper, metadata);
    t.match(await errorOf(open(t, url)), expected, what);
  }
  t.match((await open(t, (await scripted(t, proper, premotor)).url)).info.warnings, ['from the job', /untrained/]);
  const silent = await scripted(t, proper);
  silent.http.close();
  silent.http.closeAllConnections();
  t.match(await errorOf(open(t, silent.url)), { code: 'REMOTE_UNREACHABLE', found: /ECONNREFUSED/ });
  for (const [status, remedy] of [
    [401, /token_file/],
    [503, /Wait until/],
    [404, /address/],
  ] as const) {
    const http = createServer();
    http.on('upgrade', (_, socket) => socket.end(`HTTP/1.1 ${status} No\r\nContent-Length: 3\r\n\r\nno!`));
    await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
    t.teardown(() => http.close());
    const error = await errorOf(open(t, `ws://127.0.0.1:${(http.address() as AddressInfo).port}`));
    t.match(error, { code: 'REMOTE_REFUSED', found: `HTTP ${status}, "no!"`, message: remedy });
  }
});

t.test('the token is given as a header, and one that goes unencrypted elsewhere is a warning', async (t) => {
  const { url, http } = await scripted(t, proper);
  const heard: (string | undefined)[] = [];
  http.on('upgrade', ({ headers }) => heard.push(headers.authorization));
  const remote = await open(t, url, { token: 'a-token-of-24-characters' });
  t.same(heard, ['Bearer a-token-of-24-characters']);
  t.notOk(remote.info.warnings.some((one) => one.includes('unencrypted')));
});

/** Answers properly until the named request, then misbehaves. */
const then = (after: 'reset' | 'infer' | 'commit', misbehave: (socket: WebSocket) => void): Behaviour => {
  return (socket, request, number) => {
    const kind = request.has('reset') ? 'reset' : request.has('compute_kv_cache') ? 'commit' : 'infer';
    if (kind === after) misbehave(socket);
    else proper(socket, request, number);
  };
};

const doubles = new NdArray('<f8', [3, 2, 4], new Uint8Array(192));
const answers: [string, (socket: WebSocket) => void, object][] = [
  ['hangs up', (socket) => socket.terminate(), { code: 'REMOTE_LOST', found: /1006/ }],
  ['says goodbye', (socket) => socket.close(1001, 'stopping'), { code: 'REMOTE_LOST', found: /1001 \(stopping\)/ }],
  ['reports an error', (socket) => socket.send('OUT_OF_MEMORY: none left\n'), { code: 'REMOTE_ERROR', message: /OUT_OF_MEMORY: none left/ }],
  ['sends no msgpack', (socket) => socket.send(Uint8Array.of(0xc1)), { code: 'REMOTE_REPLY' }],
  ['sends a list', (socket) => socket.send(encode([1])), { code: 'REMOTE_REPLY', expected: 'a map' }],
  [
    'sends no frame of websockets',
    (socket) => (socket as unknown as { _socket: { write(data: Uint8Array): void } })._socket.write(Uint8Array.of(0xff, 0xff)),
    { code: 'REMOTE_LOST' },
  ],
];
const chunks: [string, Encodable, object][] = [
  ['no action', {}, { code: 'REMOTE_REPLY', found: 'nothing' }],
  ['another shape', { action: action([3, 4, 2]) }, { code: 'REMOTE_REPLY', found: /\[3, 4, 2\]/ }],
  ['another rank', { action: action([24]) }, { code: 'REMOTE_REPLY' }],
  ['whole numbers', { action: new NdArray('<i4', [3, 2, 4], new Uint8Array(96)) }, { code: 'REMOTE_REPLY', found: /<i4/ }],
  ['a list of lists', { action: [[1]] }, { code: 'REMOTE_REPLY' }],
  ['no number', { action: arrayOf(new Float32Array(24).fill(Number.NaN, 23), [3, 2, 4]) }, { code: 'REMOTE_REPLY', found: 'NaN at 23' }],
  [
    'a number without end',
    { action: arrayOf(new Float32Array(24).fill(-Infinity, 3, 4), [3, 2, 4]) },
    { code: 'REMOTE_REPLY', found: '-Infinity at 3' },
  ],
];

t.test('every wrong answer is an error with a code, and ends the episode', async (t) => {
  const all = [
    ...answers,
    ...chunks.map(([what, fields, error]): (typeof answers)[number] => [what, (socket) => socket.send(encode(fields)), error]),
  ];
  for (const [what, misbehave, expected] of all) {
    const { url } = await scripted(t, then('infer', misbehave));
    const remote = await open(t, url);
    await remote.reset({ prompt: 'a' });
    t.match(await errorOf(remote.predict({ obs: fakeMoment(0, JOB) })), expected, what);
    t.equal((await errorOf(remote.predict({ obs: fakeMoment(0, JOB) }))).code, 'NO_EPISODE', `${what}: the episode is over`);
    t.ok(await remote.reset({ prompt: 'b' }), `${what}: another one can be begun`);
    await remote.close();
  }
  for (const after of ['reset', 'commit'] as const) {
    const { url } = await scripted(
      t,
      then(after, (socket) => socket.send('X: y')),
    );
    const remote = await open(t, url);
    t.match(await errorOf(playEpisode(remote, 1)), { code: 'REMOTE_ERROR' }, after);
  }
  const wide = await scripted(
    t,
    then('infer', (socket) => socket.send(encode({ action: doubles }))),
  );
  const remote = await open(t, wide.url);
  await remote.reset({ prompt: 'a' });
  t.equal((await remote.predict({ obs: fakeMoment(0, JOB) })).actions.length, 24, 'doubles are taken');
});

t.test('answers that nobody asked for, and a premotor that leaves out what it promised', async (t) => {
  const twice = await scripted(t, (socket, request, number) => {
    proper(socket, request, number);
    if (number === 1) proper(socket, request, number);
  });
  const remote = await open(t, twice.url);
  const error = await errorOf(playEpisode(remote, 1));
  t.match(error, { code: 'REMOTE_REPLY', found: /nobody asked/ });
  const short = await open(t, (await scripted(t, proper, premotor)).url);
  t.match(await errorOf(short.reset({ prompt: 'a' })), { code: 'REMOTE_REPLY', expected: 'a field premotor' });
});

t.test('waiting: a slow server shows life, one without an answer or without life is an error', async (t) => {
  const told = (count: number, report: () => void) => {
    const heard: Progress[] = [];
    return { heard, onProgress: (one: Progress) => void (heard.push(one) === count && report()) };
  };
  for (const [what, metadata] of [
    ['another server', {}],
    ['a premotor', premotor],
  ] as const) {
    let answer: () => void = () => undefined;
    const cache = { capacity: 1, valid: 0, committed: 0, predicted: 0, checksum: '' };
    const timing = Object.fromEntries(
      ['encodeMs', 'videoMs', 'actionMs', 'commitMs', 'imagineMs', 'totalMs', 'videoPasses', 'actionPasses'].map((name) => [name, 1]),
    );
    const more = {
      premotor: {
        cache,
        timing,
        source: 'encoder',
        cleaned_prompt: '',
        tokens: 1,
        warnings: [],
        latents: arrayOf(new Float32Array(384), [1, 48, 2, 2, 2]),
      },
    };
    const { url } = await scripted(
      t,
      (socket, request) => {
        if (request.has('reset')) socket.send(encode(more));
        else answer = () => socket.send(encode({ action: action(), ...more }));
      },
      metadata,
    );
    const remote = await open(t, url);
    await remote.reset({ prompt: 'a' });
    // The answer comes only once life was told three times.
    const { heard, onProgress } = told(3, () => answer());
    t.ok(await remote.predict({ obs: fakeMoment(0, JOB), onProgress }), what);
    t.match(heard[0], { stage: 'remote', done: 0, total: 1 }, what);
  }
  const mute = await scripted(
    t,
    then('infer', () => undefined),
  );
  const patient = await open(t, mute.url, { reply_timeout_ms: 100 });
  await patient.reset({ prompt: 'a' });
  t.match(await errorOf(patient.predict({ obs: fakeMoment(0, JOB) })), { code: 'REMOTE_TIMEOUT', expected: 'an answer within 100 ms' });
  const dead = await scripted(t, () => undefined, premotor, false);
  const hoping = await open(t, dead.url);
  t.match(await errorOf(hoping.reset({ prompt: 'a' })), { code: 'REMOTE_TIMEOUT', expected: 'a sign of life within 3000 ms' });
});

t.test('a stop while the server computes ends the call, and the server is left', async (t) => {
  const { url } = await scripted(
    t,
    then('infer', () => stop.abort(new Error('enough'))),
  );
  const stop = new AbortController();
  const remote = await open(t, url);
  await remote.reset({ prompt: 'a' });
  t.match(await errorOf(remote.predict({ obs: fakeMoment(0, JOB), signal: stop.signal })), { code: 'ABORTED', message: /enough/ });
});

/** Always moving: 0.03 rad a knot, up and down. */
const sweeping: ActionAt = (_, knot) => 0.03 * Math.abs(((knot + 21) % 40) - 20);
const SWEEP: Partial<Job> = { action_per_frame: 16 };
const SWEEP_JOB: Job = { ...SIM_JOB, ...SWEEP };

function cycleOf(policy: ConstructorParameters<typeof ControlCycle>[0]['policy']) {
  const robot = new FakeRobot([0, 0, 0, 0].map(() => sweeping(0, -1)));
  return { robot, cycle: new ControlCycle({ policy, robot, cameras: new FakeCameras(robot), holdMs: 100 }) };
}

t.test('the control cycle moves the same setpoints with a server as without', async (t) => {
  const { url } = await serve(t, { load: async () => new FakePolicy(sweeping, SWEEP) });
  const remote = await open(t, url, { job: SWEEP_JOB });
  const moved: Float64Array[][] = [];
  for (const policy of [remote, new FakePolicy(sweeping, SWEEP)]) {
    const { robot, cycle } = cycleOf(policy);
    await cycle.arm();
    const report = await cycle.run({ prompt: 'sweep', chunks: 3 });
    t.equal(report.outcome, 'finished', report.error?.message ?? '');
    moved.push(robot.setpoints.map((one) => one.slice()));
  }
  t.ok((moved[0]?.length ?? 0) > 500);
  t.same(moved[0], moved[1]);
});

t.test('a server that fails in the middle of an episode: the arm decelerates, holds, and the report says why', async (t) => {
  const [used, K, H] = [SWEEP_JOB.used_action_channel_ids.length, SWEEP_JOB.frame_chunk_size, 16];
  const chunkOf = (chunk: number): Float32Array =>
    Float32Array.from({ length: used * K * H }, (_, index) => sweeping(0, chunk * K * H + (index % (K * H)) - H));
  const failures: [string, (socket: WebSocket) => void, string][] = [
    ['hangs up', (socket) => socket.terminate(), 'REMOTE_LOST'],
    ['reports an error', (socket) => socket.send('ENGINE_DIED: out of memory'), 'REMOTE_ERROR'],
    ['answers nonsense', (socket) => socket.send(encode({ action: arrayOf(chunkOf(1).fill(Number.NaN), [used, K, H]) })), 'REMOTE_REPLY'],
    ['answers nothing', () => undefined, 'REMOTE_TIMEOUT'],
    [
      'answers with the far side of the room',
      (socket) => socket.send(encode({ action: arrayOf(chunkOf(1).fill(40), [used, K, H]) })),
      'CONTROL_ACTION_RANGE',
    ],
  ];
  for (const [what, fail, code] of failures) {
    let predictions = 0;
    const { url } = await scripted(t, (socket, request, number) => {
      if (request.has('reset') || request.has('compute_kv_cache')) proper(socket, request, number);
      else if (predictions++ === 0) socket.send(encode({ action: arrayOf(chunkOf(0), [used, K, H]) }));
      else fail(socket);
    });
    const remote = await open(t, url, { job: SWEEP_JOB, reply_timeout_ms: 300 });
    const { robot, cycle } = cycleOf(remote);
    await cycle.arm();
    const report = await cycle.run({ prompt: 'sweep', chunks: 3 });
    t.match(report, { outcome: 'failed' }, what);
    t.equal(report.error?.code, code, what);
    t.equal(report.chunks.length, 1, what);
    t.equal(cycle.state, 'fault', what);
    const tail = robot.setpoints.slice(-50);
    t.ok(
      tail.every((one) => one.every((value, joint) => value === tail[0]?.[joint])),
      `${what}: held`,
    );
  }
});
