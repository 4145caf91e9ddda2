/**
 * What watching costs the supervisor: CPU time of processes that are told everything at a robot's rate (1000 motion samples, 12.5 pictures of two
 * cameras, a chunk a second, decoded by the shipped model in an engine process of its own) with nobody watching, and with each observer alone, the
 * page with a viewer, too; side by side. Usage: npx tsx bench/observers.ts [--seconds 10] [--rounds 3] [--rate 5] [--json] [--out FILE.md]
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { robotConfigSchema } from '../src/config/schema.js';
import type { CycleEvent } from '../src/control/events.js';
import type { Frame } from '../src/policy/contract.js';
import { loadPolicy } from '../src/policy/load.js';
import { toTensor } from '../src/policy/tensor.js';
import { Observers } from '../src/runtime/observers.js';
import { JOINTS } from '../src/sim/arm.js';
import type { RunAbout } from '../src/tap/observer.js';
import { TestViewer } from '../test/dashboard/viewer.js';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '10' },
    rounds: { type: 'string', default: '3' },
    rate: { type: 'string', default: '5' },
    out: { type: 'string' },
    json: { type: 'boolean', default: false },
    child: { type: 'string' },
  },
});
const MODES = ['nobody', 'telemetry', 'recorder, window', 'recorder, full', 'page', 'page, one viewer'] as const;
type ModeName = (typeof MODES)[number];
const root = fileURLToPath(new URL('..', import.meta.url));
/** As the simulated robot in real time: so often, whatever is due. */
const FEED_PERIOD_MS = 4;
const SAMPLE_MS = 1;
const FRAME_MS = 80;
const CHUNK_MS = 1000;
const WARM_UP_MS = 3000;

interface Turn {
  readonly cpuMs: number;
  readonly wallMs: number;
  readonly samples: number;
  readonly frames: number;
  readonly decodes: number;
  /** On the disk. */
  readonly bytes: number;
}

/** Pictures with something in them: a flat one compresses to nothing. */
function pictureOf(camera: string, size: number, ms: number): Frame {
  const data = new Uint8Array(size * size * 3);
  for (let i = 0; i < data.length; i++) data[i] = (i * 7 + Math.floor(i / (3 * size)) * 13 + ms) & 255;
  return { camera, width: size, height: size, data, capturedAtNs: BigInt(ms) * 1_000_000n };
}

/** Feeds the observers for ever. */
class Feeder {
  samples = 0;
  frames = 0;
  decodes = 0;
  readonly #observers: Observers;
  readonly #pictures: readonly (readonly Frame[])[];
  readonly #latents: Float32Array;
  readonly #shape: readonly number[];
  readonly #sample = { setpointRad: new Float64Array(4), positionsRad: new Float64Array(4), velocitiesRadPerS: new Float64Array(4) };
  #atMs = 0;

  constructor(observers: Observers, cameras: readonly string[], [channels, frames, height, width]: readonly [number, number, number, number]) {
    this.#observers = observers;
    this.#pictures = Array.from({ length: 8 }, (_, index) => cameras.map((camera) => pictureOf(camera, 96, index)));
    this.#shape = [1, channels, frames, height, width];
    this.#latents = new Float32Array(channels * frames * height * width);
  }

  run(): void {
    const originMs = performance.now();
    setInterval(() => {
      for (const nowMs = performance.now() - originMs; this.#atMs <= nowMs; this.#atMs += SAMPLE_MS) this.#step(this.#atMs);
    }, FEED_PERIOD_MS);
  }

  #step(ms: number): void {
    const timeNs = BigInt(ms) * 1_000_000n;
    const { setpointRad, positionsRad } = this.#sample;
    for (let joint = 0; joint < 4; joint++) {
      setpointRad[joint] = Math.sin(ms / 500 + joint);
      positionsRad[joint] = Math.sin(ms / 500 + joint - 0.01);
    }
    this.#observers.motion({ timeNs, ...this.#sample });
    this.samples++;
    if (ms % FRAME_MS === 0) {
      const frames = (this.#pictures[(ms / FRAME_MS) % 8] ?? []).map((frame) => ({ ...frame, capturedAtNs: timeNs }));
      this.#observers.event({ type: 'frames', frames }, timeNs);
      this.frames += frames.length;
    }
    if (ms % CHUNK_MS === 0) this.#chunk(ms / CHUNK_MS, timeNs);
  }

  #chunk(chunk: number, timeNs: bigint): void {
    const timing = { encodeMs: 30, videoMs: 50, actionMs: 20, commitMs: 30, imagineMs: 0, totalMs: 130, videoPasses: 6, actionPasses: 11 };
    const latents = toTensor(this.#latents, this.#shape);
    const tell = (event: CycleEvent): void => this.#observers.event({ type: 'cycle', event }, timeNs);
    for (let pass = 1; pass <= 17; pass++) tell({ type: 'progress', chunk, progress: { stage: 'video', done: pass, total: 17 } });
    tell({ type: 'predicted', chunk, frameIndex: 2 * chunk, latents, timing });
    tell({ type: 'remembered', frameIndex: 2 * chunk, latents });
  }
}

/** One supervisor: says where its page is, then its CPU time when it is asked. */
async function serve(mode: ModeName): Promise<void> {
  const policy = await loadPolicy({ checkpoint: `${root}models/tabletop`, job: `${root}models/tabletop/job.json`, isolate: true });
  const folder = mkdtempSync(join(tmpdir(), 'premotor-observers-'));
  const config = robotConfigSchema.parse({
    robot: { type: 'sim' },
    policy: { checkpoint_dir: '.' },
    telemetry: { enabled: mode === 'telemetry' },
    recording: { out_dir: folder, recorder: { mode: mode === 'recorder, full' ? 'full' : mode === 'recorder, window' ? 'window' : 'off' } },
    dashboard: { enabled: mode.startsWith('page'), viewer_rate_hz: Number(values.rate) },
  });
  let url = '';
  const observers = await Observers.open(config, {
    onNotice: (text) => (url = /http:\S+\//.exec(text)?.[0] ?? url),
    onWarning: ({ message }) => process.stderr.write(`${mode}: ${message}\n`),
  });
  if (observers.names.length !== (mode === 'nobody' ? 0 : 1)) throw new Error(`${mode}: ${observers.names.join(', ') || 'nobody'} watches`);
  const cameras = [...policy.job.obs_cam_keys, 'observation.images.cam_wrist'];
  const feeder = new Feeder(observers, cameras, policy.info.latentShape);
  const counts = { cycles: 0, missed: 0, chunks: 0, chunks_refused: 0, expired: 0, sets_followed: 0, values_clamped: 0, frames_ignored: 0 };
  const states = { state: 'running', stream: 'following', link: 'armed', bridge: 'following', faultCode: '', faultMessage: '' } as const;
  const originMs = performance.now();
  const nowNs = (): bigint => BigInt(Math.round((performance.now() - originMs) * 1e6));
  await observers.begin(aboutOf(policy, cameras, config), {
    requestStop: () => undefined,
    status: () => ({ ...states, timeNs: nowNs(), isAtRest: false, counts, temperaturesC: {} }),
    cache: () => policy.cache,
    decode: (latents) => {
      feeder.decodes++;
      return policy.decode(latents);
    },
  });
  feeder.run();
  const begun = (): Turn => ({
    ...cpuNow(),
    samples: feeder.samples,
    frames: feeder.frames,
    decodes: feeder.decodes,
    bytes: bytesBelow(folder),
  });
  process.on('message', (asked) => {
    if (asked === 'count') process.send?.(begun());
    else void observers.close().then(() => policy.close().then(() => end(folder)));
  });
  process.send?.({ url });
}

function end(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
  process.exit(0);
}

const bytesBelow = (folder: string): number =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + (statSync(join(parentPath, name), { throwIfNoEntry: false })?.size ?? 0), 0);

function cpuNow(): Pick<Turn, 'cpuMs' | 'wallMs'> {
  const { user, system } = process.cpuUsage();
  return { cpuMs: (user + system) / 1000, wallMs: performance.now() };
}

function aboutOf({ job, info }: Awaited<ReturnType<typeof loadPolicy>>, keys: readonly string[], configuration: unknown): RunAbout {
  const cameras = keys.map((camera) => ({ camera, width: 96, height: 96 }));
  const scene = { robot: 'bench', task: 'touch', instruction: 'touch', seed: 0, chunksMax: 1e6, actionRateHz: 25, mode: 'sync', checkpoint: '.' };
  return {
    ...scene,
    id: 'bench',
    version: '0',
    joints: JOINTS,
    cameras,
    untrained: false,
    job,
    policy: info,
    configuration,
    epochNs: 0n,
    timeNs: 0n,
  };
}

interface Supervisor {
  readonly mode: ModeName;
  readonly child: ChildProcess;
  readonly viewer: TestViewer | undefined;
}

async function start(mode: ModeName): Promise<Supervisor> {
  const child = fork(fileURLToPath(import.meta.url), ['--child', mode, '--rate', values.rate], {
    execArgv: process.execArgv,
    stdio: ['ignore', 2, 2, 'ipc'],
  });
  const [{ url }] = (await once(child, 'message')) as [{ url: string }];
  return { mode, child, viewer: mode === 'page, one viewer' ? await TestViewer.open(url) : undefined };
}

async function count({ child }: Supervisor): Promise<Turn> {
  const answer = once(child, 'message');
  child.send('count');
  return ((await answer) as [Turn])[0];
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const sum = (numbers: readonly number[]): number => numbers.reduce((total, one) => total + one, 0);

/** All run at once, so that what else this machine does meets them alike. */
async function measure() {
  const supervisors = await Promise.all(MODES.map(start));
  await pause(Math.min(WARM_UP_MS, 1000 * Number(values.seconds)));
  const rounds: Turn[][] = [];
  const viewer = supervisors.at(-1)?.viewer;
  const seen = { pictures: 0, messages: 0 };
  for (let round = 0; round < Number(values.rounds); round++) {
    const before = await Promise.all(supervisors.map(count));
    const [pictures, messages] = [viewer?.pictures.length ?? 0, viewer?.messages.length ?? 0];
    await pause(1000 * Number(values.seconds));
    const after = await Promise.all(supervisors.map(count));
    seen.pictures += (viewer?.pictures.length ?? 0) - pictures;
    seen.messages += (viewer?.messages.length ?? 0) - messages;
    rounds.push(after.map((one, index) => minus(one, before[index] as Turn)));
  }
  const kinds = viewer?.kinds() ?? [];
  for (const { child } of supervisors) {
    const ended = once(child, 'exit');
    child.send('end');
    await ended;
  }
  const shares = MODES.map((_, index) => rounds.map((turns) => (100 * (turns[index]?.cpuMs ?? 0)) / (turns[index]?.wallMs ?? 1)));
  const total = MODES.map((_, index) => rounds.map((turns) => turns[index] as Turn).reduce(plus));
  return { shares, total, seen, kinds };
}

const minus = (a: Turn, b: Turn): Turn => combine(a, b, -1);
const plus = (a: Turn, b: Turn): Turn => combine(a, b, 1);
function combine(a: Turn, b: Turn, sign: number): Turn {
  const of = (key: keyof Turn): number => a[key] + sign * b[key];
  return {
    cpuMs: of('cpuMs'),
    wallMs: of('wallMs'),
    samples: of('samples'),
    frames: of('frames'),
    decodes: of('decodes'),
    bytes: of('bytes'),
  };
}

function report({ shares, total, seen, kinds }: Awaited<ReturnType<typeof measure>>): string {
  const mean = shares.map((all) => sum(all) / all.length);
  const rows = MODES.map((mode, index) => {
    const turns = (shares[index] ?? []).map((one) => one.toFixed(2)).join(', ');
    const more = index === 0 ? '-' : ((mean[index] ?? 0) - (mean[0] ?? 0)).toFixed(2);
    const { samples, frames, decodes, bytes, wallMs } = total[index] as Turn;
    // A window drops what is too old: its folder does not tell what was written.
    const written = mode === 'recorder, full' ? (bytes / wallMs).toFixed(0) : '-';
    return `| ${mode} | ${mean[index]?.toFixed(2)} | ${more} | ${turns} | ${samples} | ${frames} | ${decodes} | ${written} |`;
  });
  const seconds = Number(values.seconds) * Number(values.rounds);
  return `# What watching costs the supervisor

${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores, Linux ${release()}, Node ${process.version};
load average ${loadavg()[0]?.toFixed(2)} (what else ran here).
\`npx tsx bench/observers.ts --seconds ${values.seconds} --rounds ${values.rounds} --rate ${values.rate}\`.
${MODES.length} processes side by side, each told 1000 motion samples a second, 12.5 pictures of each of
two cameras (96 x 96) and a chunk a second; user and system time of the supervisor process with all its threads, in percent of one core.

| who watches | % of a core | more than nobody | each round | samples | pictures told | decodes | kB/s on the disk |
|---|---|---|---|---|---|---|---|
${rows.join('\n')}

Telemetry goes to a broker in the same process. The page's viewer was sent
${seen.pictures} pictures (${(seen.pictures / seconds).toFixed(1)} a second, of ${kinds.join(', ')})
and ${seen.messages} messages (${(seen.messages / seconds).toFixed(1)} a second). Decoding itself is the engine process's time and not counted;
its pictures' way back is.
`;
}

if (values.child !== undefined) await serve(values.child as ModeName);
else {
  const measured = await measure();
  const looked = measured.total.at(-1);
  if (measured.total.slice(0, -1).some(({ decodes }) => decodes > 0)) throw new Error('something was decoded for nobody');
  if (measured.seen.pictures === 0 || (looked?.samples ?? 0) === 0) throw new Error('the viewer saw nothing');
  const text = report(measured);
  if (values.out !== undefined) writeFileSync(values.out, text);
  process.stdout.write(values.json ? `${JSON.stringify(measured)}\n` : text);
}
