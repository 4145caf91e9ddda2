/**
 * The proof from outside: a client written from the protocol's text, in another language and with nothing but its standard library, plays an episode
 * of the simulated robot against `premotor serve` and the shipped checkpoint. Its actions are those of a local policy, bit by bit. The episode was
 * recorded from the closed loop just before: pictures and executed actions are the robot's own.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { Narrator } from '../../src/cli/episode.js';
import { ProgressBar } from '../../src/cli/progress.js';
import { robotConfigSchema } from '../../src/config/schema.js';
import type { Frame, Policy } from '../../src/policy/contract.js';
import { loadPolicy } from '../../src/policy/load.js';
import { runEpisode } from '../../src/runtime/episode.js';
import { Observers } from '../../src/runtime/observers.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const checkpoint = join(root, 'models', 'tabletop');
const CHUNKS = 3;
/** As `premotor serve` starts with. */
const SEED = 0;

const skip = !existsSync(join(root, 'build', 'Release', 'premotor.node'))
  ? 'SKIPPED: the addon is not built'
  : spawnSync('python3', ['--version']).status !== 0
    ? 'SKIPPED: python3 is not installed'
    : false;

interface Seen {
  readonly prompt: string[];
  readonly first: (readonly Frame[])[];
  readonly actions: Float32Array[];
  readonly commits: { readonly obs: readonly (readonly Frame[])[]; readonly actions: Float32Array }[];
}

/** The policy, and a note of what it was asked and answered. */
function noted(policy: Policy, seen: Seen): Policy {
  return new Proxy(policy, {
    get: (target, name) => {
      if (name === 'reset') {
        return (options: Parameters<Policy['reset']>[0]) => {
          seen.prompt.push(options.prompt);
          return target.reset(options);
        };
      }
      if (name === 'predict') {
        return async (options: NonNullable<Parameters<Policy['predict']>[0]>) => {
          if (options.obs) seen.first.push(options.obs);
          const chunk = await target.predict(options);
          seen.actions.push(chunk.actions.slice());
          return chunk;
        };
      }
      if (name === 'commit') {
        return (options: Parameters<Policy['commit']>[0]) => {
          seen.commits.push({ obs: options.obs, actions: options.actions.slice() });
          return target.commit(options);
        };
      }
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** An episode of the whole loop with the engine in this process. */
async function recorded(dir: string): Promise<Seen> {
  const seen: Seen = { prompt: [], first: [], actions: [], commits: [] };
  const config = robotConfigSchema.parse({
    robot: { type: 'sim' },
    task: { name: 'touch', seed: 3 },
    policy: { checkpoint_dir: checkpoint, threads: 1, isolate: false, recover: false, seed: SEED },
    control: { chunks_max: CHUNKS },
    recording: { out_dir: dir, animation: false, replay: false, recorder: { mode: 'off' } },
    telemetry: { enabled: false },
    dashboard: { enabled: false },
  });
  const bar = new ProgressBar({ write: () => undefined });
  await runEpisode(config, {
    loadPolicy: async (options) => noted(await loadPolicy(options), seen),
    observer: new Narrator(bar, { isolate: false, actionRateHz: 25 }),
    signal: new AbortController().signal,
    openObservers: (_, parts) => Observers.open(config, parts, []),
  });
  return seen;
}

const bytesOf = (array: Float32Array): Buffer => Buffer.from(array.buffer, array.byteOffset, array.byteLength);

/** The episode as the client's two files. */
function write(dir: string, { prompt, first, commits }: Seen, used: number, H: number): { about: string; data: string } {
  const [about, data] = [join(dir, 'episode.json'), join(dir, 'episode.bin')];
  const opening = first[0] as readonly Frame[];
  const { width, height } = opening[0] as Frame;
  const pictures = [opening, ...commits.flatMap(({ obs }) => obs)].flatMap((moment) => moment.map((frame) => frame.data));
  const chunks = commits.map(({ obs, actions }) => ({ moments: obs.length, state: [used, actions.length / used / H, H] }));
  writeFileSync(about, JSON.stringify({ prompt: prompt[0], cameras: opening.map(({ camera }) => camera), picture: [height, width], chunks }));
  writeFileSync(data, Buffer.concat([...pictures, ...commits.map(({ actions }) => bytesOf(actions))]));
  return { about, data };
}

/** `premotor serve` as a process of its own; resolves with its port. */
async function served(t: Test, options: readonly string[]): Promise<{ port: number; stop: () => Promise<number | null>; log: () => string }> {
  const argv = JSON.stringify(['serve', checkpoint, '--port', '0', '--json', ...options]);
  const script = `import { runCli } from './src/cli/main.ts'; process.exitCode = await runCli(${argv});`;
  const child = spawn(process.execPath, ['--import=tsx', '--input-type=module', '-e', script], { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  let out = '';
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  const port = await new Promise<number>((resolve, reject) => {
    void ended.then(() => reject(new Error(`the server ended: ${out}`)));
    child.stdout.on('data', (data) => {
      out += data;
      const [, found] = /"event":"listening".*"port":(\d+)/.exec(out) ?? [];
      if (found !== undefined) resolve(Number(found));
    });
  });
  const stop = (): Promise<number | null> => {
    child.kill('SIGTERM');
    return ended;
  };
  return { port, stop, log: () => out };
}

function client(args: readonly string[]): Promise<{ code: number | null; text: string }> {
  return new Promise((resolve) => {
    const child = spawn('python3', [join(root, 'test', 'server', 'independent_client.py'), ...args]);
    let text = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (text += data));
    child.on('close', (code) => resolve({ code, text }));
  });
}

t.test('an independent client completes an episode with the actions of the local policy, bit by bit', { skip }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'premotor-independent-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const seen = await recorded(dir);
  t.ok(seen.actions.length >= 2 && seen.commits.length === seen.actions.length, `${seen.actions.length} chunks were recorded`);
  const token = 'a-token-of-many-characters';
  writeFileSync(join(dir, 'token'), `${token}\n`);
  const { port, stop, log } = await served(t, ['--threads', '1', '--token-file', join(dir, 'token')]);
  const job = JSON.parse(readFileSync(join(checkpoint, 'job.json'), 'utf8')) as { used_action_channel_ids: number[]; action_per_frame: number };
  const { about, data } = write(dir, seen, job.used_action_channel_ids.length, job.action_per_frame);
  const out = join(dir, 'answers.bin');
  t.match(await client([String(port), about, data, out, 'wrong-token-wrong-token']), { code: 1, text: / 401 / });
  // Twice: an episode leaves nothing behind for the next client.
  for (const round of [1, 2]) {
    t.match(await client([String(port), about, data, out, token]), { code: 0, text: `${seen.actions.length} chunks\n` });
    t.ok(readFileSync(out).equals(Buffer.concat(seen.actions.map(bytesOf))), `round ${round}: equal in every bit`);
  }
  t.equal(await stop(), 0, 'SIGTERM is a good end');
  const events = log()
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { event: string }).event);
  t.same(events.filter((one) => one === 'connected').length, 2);
  t.same(events.slice(0, 3), ['loading', 'loaded', 'listening']);
  t.same(events.slice(-2), ['stopping', 'stopped']);
  t.notOk(log().includes(token));
});
