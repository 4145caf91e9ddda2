/**
 * Kills the engine process of an episode with SIGKILL and counts how many tasks are done all the same: press-n with the shipped checkpoint, in
 * virtual time, the kill somewhere in the first prediction or commit after the first press, so that the count so far exists in the policy's memory
 * alone. Only seeds whose undisturbed run succeeds are used; both runs are reported. Usage: npx tsx bench/kill-engine.ts [--runs 100] [--seed 50000]
 * [--checkpoint models/tabletop] [--threads 1] [--json] [--out FILE.md]; exit code 1 when a task was lost or an action differed.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Configuration } from '../src/evaluation/configuration.js';
import { runEpisode } from '../src/evaluation/episode.js';
import type { Policy } from '../src/policy/contract.js';
import { loadPolicy } from '../src/policy/load.js';
import { type Engine, RecoveringPolicy, type Recovery } from '../src/policy/recovering.js';
import { ACTION_RATE_HZ } from '../src/sim/job.js';
import { Random } from '../src/sim/random.js';
import { Simulation } from '../src/sim/simulation.js';
import { pressN } from '../src/sim/tasks/press-n.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '100' },
    seed: { type: 'string', default: '50000' },
    checkpoint: { type: 'string', default: join(root, 'models', 'tabletop') },
    threads: { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
    out: { type: 'string' },
  },
});
/** One kill in so many is aimed at a commit, the others at a prediction. */
const COMMIT_SHARE = 4;
const CONFIGURATION: Configuration = { precision: 'f32', memory: 'episode', disturbances: {}, pace: 'virtual' };

interface Run {
  readonly seed: number;
  readonly expected: number;
  readonly aimedAt: 'predict' | 'commit';
  /** What the engine was doing when it was noticed to be dead. */
  readonly hit: string;
  /** Chunk in which it died, from 1. */
  readonly chunk: number;
  readonly verdict: string;
  readonly presses: number;
  /** Every action of every chunk, and the time to completion, as in the undisturbed run. */
  readonly sameBits: boolean;
  readonly commits: number;
  readonly restartedMs: number;
  readonly rebuiltMs: number;
}

/** Kills the engine once, in the first call of a kind after the first press. */
class Killer {
  readonly actions = createHash('sha256');
  chunk = 0;
  hit = 'never';
  #isArmed = false;
  #timer: NodeJS.Timeout | undefined;
  #now = 'nothing';
  /** What calls of a kind have taken lately. */
  readonly #lastMs: Record<'predict' | 'commit', number> = { predict: 1, commit: 1 };

  constructor(
    readonly policy: RecoveringPolicy,
    readonly aim: { readonly call: 'predict' | 'commit'; readonly share: number } | undefined,
    readonly hasPressed: () => boolean,
  ) {}

  /** The policy with the kill built in. */
  get armed(): Policy {
    const wrap = (name: 'predict' | 'commit', call: (options: never) => Promise<unknown>) => async (options: never) => {
      this.#now = name;
      if (name === 'predict') this.chunk++;
      const begun = performance.now();
      if (this.aim?.call === name && !this.#isArmed && this.hasPressed()) this.#shoot(this.aim.share * this.#lastMs[name]);
      try {
        const result = await call(options);
        if (name === 'predict') this.actions.update((result as { actions: Float32Array }).actions);
        return result;
      } finally {
        this.#lastMs[name] = performance.now() - begun;
        this.#now = 'nothing';
      }
    };
    return new Proxy(this.policy, {
      get: (target, name) => {
        const member: unknown = Reflect.get(target, name, target);
        if (typeof member !== 'function') return member;
        const call = member.bind(target) as (options: never) => Promise<unknown>;
        return name === 'predict' || name === 'commit' ? wrap(name, call) : call;
      },
    });
  }

  #shoot(delayMs: number): void {
    this.#isArmed = true;
    const { pid } = this.policy;
    this.#timer = setTimeout(() => {
      this.hit = this.#now;
      if (pid !== undefined) process.kill(pid, 'SIGKILL');
    }, delayMs);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

const dir = mkdtempSync(join(tmpdir(), 'premotor-kill-'));
const checkpoint = resolve(values.checkpoint);
const job = JSON.parse(readFileSync(join(checkpoint, 'job.json'), 'utf8')) as Record<string, unknown>;
const recoveries: Recovery[] = [];
const policy = await RecoveringPolicy.open({
  open: () => loadPolicy({ checkpoint, job, precision: 'f32', threads: Number(values.threads), isolate: true }) as Promise<Engine>,
  journal: { dir, seed: 0, configuration: 'bench' },
  onRecovery: (recovery) => recoveries.push(recovery),
});
const cameras = policy.job.obs_cam_keys.map((key) => key.slice(key.lastIndexOf('.') + 1)) as ('cam_front' | 'cam_wrist')[];
const simulation = await Simulation.open({ kind: pressN.kind, cameras });

async function episode(seed: number, aim: Killer['aim']) {
  const { target, count } = pressN.scene(seed);
  const killer = new Killer(policy, aim, () => simulation.world.presses(target) > 0);
  try {
    const { result } = await runEpisode({ task: pressN, seed, policy: killer.armed, simulation, configuration: CONFIGURATION });
    return { result, killer, digest: killer.actions.digest('hex'), count };
  } finally {
    killer.stop();
  }
}

const runs: Run[] = [];
const wanted = Number(values.runs);
let tried = 0;
const beganMs = performance.now();
const before = loadavg()[0] ?? 0;
let isEnough = false;
// A long measurement that is asked to end reports what it has.
process.once('SIGTERM', () => (isEnough = true));
for (let seed = Number(values.seed); runs.length < wanted && !isEnough; seed++) {
  tried++;
  const undisturbed = await episode(seed, undefined);
  if (undisturbed.result.verdict !== 'succeeded') continue;
  const random = new Random(seed);
  const aim = { call: random.integer(COMMIT_SHARE) === 0 ? 'commit' : 'predict', share: random.uniform(0, 1) } as const;
  recoveries.length = 0;
  const { result, killer, digest, count } = await episode(seed, aim);
  const at = (phase: Recovery['phase']): Recovery | undefined => recoveries.find((one) => one.phase === phase);
  runs.push({
    seed,
    expected: count,
    aimedAt: aim.call,
    hit: killer.hit,
    chunk: killer.chunk,
    verdict: result.verdict,
    presses: result.presses.length,
    sameBits: digest === undisturbed.digest && result.completionS === undisturbed.result.completionS,
    commits: at('died')?.commits ?? 0,
    restartedMs: at('restarted')?.elapsedMs ?? Number.NaN,
    rebuiltMs: at('rebuilt')?.elapsedMs ?? Number.NaN,
  });
  if (!values.json) process.stderr.write(`\r${runs.length}/${wanted} runs, ${tried} seeds`);
}
process.stderr.write('\n');
await policy.close();
simulation.close();
rmSync(dir, { recursive: true });

const rank = (list: readonly number[], share: number): number =>
  [...list].sort((a, b) => a - b)[Math.max(0, Math.ceil(share * list.length) - 1)] ?? Number.NaN;
const recovered = runs.filter(({ rebuiltMs }) => !Number.isNaN(rebuiltMs));
const motionMs = (commits: number): number => (commits * policy.job.frame_chunk_size * policy.job.action_per_frame * 1000) / ACTION_RATE_HZ;
const figures = (list: readonly number[]) => ({ p50: rank(list, 0.5), p99: rank(list, 0.99), max: rank(list, 1) });
const summary = {
  runs: runs.length,
  seedsTried: tried,
  succeeded: runs.filter(({ verdict }) => verdict === 'succeeded').length,
  rightPresses: runs.filter(({ presses, expected }) => presses === expected).length,
  sameBits: runs.filter(({ sameBits }) => sameBits).length,
  recovered: recovered.length,
  hits: Object.fromEntries(['predict', 'commit', 'nothing', 'never'].map((hit) => [hit, runs.filter((run) => run.hit === hit).length])),
  recoveryMs: figures(recovered.map(({ rebuiltMs }) => rebuiltMs)),
  restartMs: figures(recovered.map(({ restartedMs }) => restartedMs)),
  rebuildMs: figures(recovered.map(({ restartedMs, rebuiltMs }) => rebuiltMs - restartedMs)),
  /** Motion that is rebuilt, against the time that it takes. */
  timesRealTime: figures(recovered.map(({ commits, restartedMs, rebuiltMs }) => motionMs(commits) / (rebuiltMs - restartedMs))),
  commitsRebuilt: figures(recovered.map(({ commits }) => commits)),
  wallS: (performance.now() - beganMs) / 1000,
};

function report(): string {
  const commit = spawnSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).stdout?.trim() || 'unknown';
  const line = (name: string, { p50, p99, max }: { p50: number; p99: number; max: number }, digits = 0): string =>
    `| ${name} | ${p50.toFixed(digits)} | ${p99.toFixed(digits)} | ${max.toFixed(digits)} |`;
  const { hits } = summary;
  const { checkpointHash, backend, threads } = policy.info;
  return [
    `# Engine killed in mid-episode, ${new Date().toISOString().slice(0, 10)}`,
    '',
    `Commit ${commit}; ${cpus()[0]?.model ?? 'unknown processor'}, ${availableParallelism()} cores, Linux ${release()}; load average before the run`,
    `${before.toFixed(2)} (what else ran here). Checkpoint ${checkpointHash.slice(0, 12)}, ${backend}, f32, ${threads} thread(s),`,
    `task press-n, synchronous cycle in virtual time, seeds from ${values.seed}. \`npx tsx bench/kill-engine.ts --runs ${wanted}\`,`,
    `${summary.wallS.toFixed(0)} s${isEnough ? `, ended early after ${runs.length} runs` : ''}.`,
    '',
    `${tried} seeds were tried; ${runs.length} succeed undisturbed, and these were run again with the engine process killed (SIGKILL) once, in`,
    'the first prediction (three in four) or commit (one in four) after the first press, at a random point of it.',
    '',
    '| | undisturbed | killed |',
    '|---|---|---|',
    `| task done | ${runs.length} of ${runs.length} (chosen so) | ${summary.succeeded} of ${runs.length} |`,
    `| right number of presses | ${runs.length} | ${summary.rightPresses} |`,
    `| every action the same in every bit, same time to completion | - | ${summary.sameBits} |`,
    '',
    `The kill met: a prediction ${hits['predict']}, a commit ${hits['commit']}, the time after the call ${hits['nothing']}, nothing (the episode was`,
    `over first) ${hits['never']}.`,
    '',
    '| | p50 | p99 | max |',
    '|---|---|---|---|',
    line('from death to the same point again, ms', summary.recoveryMs),
    line('of that: another process with the checkpoint loaded, ms', summary.restartMs),
    line('of that: prompt and commits rebuilt, ms', summary.rebuildMs, 1),
    line('commits rebuilt', summary.commitsRebuilt),
    line('motion rebuilt / time for it', summary.timesRealTime, 1),
    '',
    'The new process runs TypeScript through a loader here, which costs most of its start; a built package starts faster.',
  ].join('\n');
}

console.log(values.json ? JSON.stringify({ summary, runs }, null, 2) : report());
if (values.out !== undefined) writeFileSync(values.out, `${report()}\n`);
if (summary.rightPresses < runs.length || summary.sameBits < runs.length || summary.hits['never'] === runs.length) process.exitCode = 1;
