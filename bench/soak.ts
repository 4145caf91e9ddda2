/**
 * Hours of episodes with everything on: telemetry to a real broker, the flight recorder, the page, the journal. Whether memory and handles grow,
 * whether control cycles are missed, whether the disk budgets are kept. --help has the options. Exit codes: 0 everything kept, 1 something broken or
 * failed, 3 undecided.
 */
import { type ChildProcess, execFileSync, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { cpus, loadavg, tmpdir, userInfo } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { stringify } from 'yaml';
import { type Bounds, type Deadlines, judgeSoak, overall, type Sample } from './soak-judge.js';
import { type Episodes, soakReport, soakSvg } from './soak-report.js';
import { mibBelow, sampleProcesses, temperatureC } from './soak-sample.js';
import type { Told } from './soak-worker.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const MOSQUITTO = ['/usr/sbin/mosquitto', '/usr/bin/mosquitto'].find((path) => existsSync(path));
/** An engine of an episode lives for some seconds. */
const SAMPLE_S_MAX = 2;
const END_MS_MAX = 60_000;
/** Small, so that they are reached. */
const RECORDER_MIB = 64;
const QUEUE_MIB = 8;
const JOURNAL_MIB = 64;

const { values } = parseArgs({
  options: {
    hours: { type: 'string', default: '1' },
    minutes: { type: 'string' },
    out: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
    'rss-mib-per-h': { type: 'string', default: '8' },
    'fds-per-h': { type: 'string', default: '2' },
    'missed-per-million': { type: 'string', default: '100' },
  },
});
if (values.help) {
  process.stdout.write(
    'npx tsx bench/soak.ts [--hours 1 | --minutes N] [--out FILE.md] [--json] [--rss-mib-per-h 8] [--fds-per-h 2] [--missed-per-million 100]\n',
  );
  process.exit(0);
}
const soakS = values.minutes === undefined ? 3600 * Number(values.hours) : 60 * Number(values.minutes);
if (!(soakS > 0)) throw new Error('--hours and --minutes are numbers above 0');

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

interface Broker {
  readonly url: string | undefined;
  readonly child: ChildProcess | undefined;
}

/** A real one where there is one; else the robot embeds its own. */
async function startBroker(folder: string): Promise<Broker> {
  if (MOSQUITTO === undefined) {
    process.stderr.write('No mosquitto here: the embedded broker takes its place.\n');
    return { url: undefined, child: undefined };
  }
  const port = await freePort();
  const file = join(folder, 'mosquitto.conf');
  writeFileSync(file, `listener ${port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser ${userInfo().username}\n`);
  return { url: `mqtt://127.0.0.1:${port}`, child: spawn(MOSQUITTO, ['-c', file], { stdio: 'ignore' }) };
}

/** The simulated robot at the clock's pace; the recorder writes everything, so that its budget is met. */
function configuration(folder: string, broker: string | undefined): string {
  const file = join(folder, 'robot.yaml');
  const config = {
    robot: { type: 'sim', pace: 'real' },
    task: { name: 'press-n' },
    policy: { checkpoint_dir: join(root, 'models', 'tabletop'), threads: 1 },
    recording: {
      out_dir: join(folder, 'out'),
      animation: false,
      replay: false,
      journal_dir: join(folder, 'journal'),
      recorder: { mode: 'full', dir: join(folder, 'flight'), disk_max_mib: RECORDER_MIB },
    },
    telemetry: {
      ...(broker === undefined ? {} : { broker_url: broker }),
      queue_dir: join(folder, 'queue'),
      queue_max_mib: QUEUE_MIB,
      node_id: 'soak',
    },
    dashboard: { enabled: true },
  };
  writeFileSync(file, stringify(config));
  return file;
}

class Soak {
  readonly samples: Sample[] = [];
  readonly outcomes: Record<string, number> = {};
  readonly warnings: Record<string, number> = {};
  deadlines: Deadlines = { cycles: 0, missed: 0 };
  succeeded = 0;
  count = 0;
  #loop: { p99Ms: number; maxMs: number } | undefined;

  hear(told: Told): void {
    if (told.type === 'loop') this.#loop = told;
    if (told.type === 'warning') this.warnings[told.code] = (this.warnings[told.code] ?? 0) + 1;
    if (told.type !== 'episode') return;
    const outcome = told.error === null ? told.outcome : `${told.outcome} (${told.error})`;
    this.outcomes[outcome] = (this.outcomes[outcome] ?? 0) + 1;
    this.succeeded += Number(told.success);
    this.count++;
    this.deadlines = { cycles: this.deadlines.cycles + told.cycles, missed: this.deadlines.missed + told.missed };
  }

  sample(atS: number, pid: number, folder: string): void {
    const disk = { recordings: mibBelow(join(folder, 'flight')), queue: mibBelow(join(folder, 'queue')), journal: mibBelow(join(folder, 'journal')) };
    const [loopP99Ms, loopMaxMs] = [this.#loop?.p99Ms ?? null, this.#loop?.maxMs ?? null];
    this.samples.push({ atS, processes: sampleProcesses(pid), disk, loopP99Ms, loopMaxMs, temperatureC: temperatureC() });
  }

  get episodes(): Episodes {
    return { count: this.count, succeeded: this.succeeded, outcomes: this.outcomes, warnings: this.warnings };
  }
}

async function run(folder: string, broker: Broker): Promise<Soak> {
  const soak = new Soak();
  const worker = fork(join(root, 'bench', 'soak-worker.ts'), [configuration(folder, broker.url)], {
    execArgv: process.execArgv,
    stdio: ['ignore', 2, 2, 'ipc'],
  });
  const gone = once(worker, 'exit');
  let isGone = false;
  void gone.then(() => (isGone = true));
  worker.on('message', (told: Told) => soak.hear(told));
  const begunMs = performance.now();
  const everyS = Math.min(SAMPLE_S_MAX, Math.max(0.2, soakS / 200));
  for (let atS = 0; atS < soakS && !isGone; atS = (performance.now() - begunMs) / 1000) {
    soak.sample(atS, worker.pid ?? 0, folder);
    await Promise.race([sleep(1000 * everyS), gone]);
  }
  if (isGone) throw new Error(`the supervisor of the soak ended by itself, code ${worker.exitCode}, signal ${worker.signalCode}`);
  worker.send('end');
  const timer = setTimeout(() => worker.kill('SIGKILL'), END_MS_MAX);
  await gone;
  clearTimeout(timer);
  if (worker.signalCode !== null) throw new Error(`the supervisor did not end within ${END_MS_MAX} ms`);
  return soak;
}

const loadText = (load: readonly number[]): string => `load ${load.map((value) => value.toFixed(2)).join(' ')} at the start`;

async function main(): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'premotor-soak-'));
  const load = loadText(loadavg());
  const broker = await startBroker(folder);
  let soak: Soak;
  try {
    soak = await run(folder, broker);
  } finally {
    broker.child?.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  }
  const bounds: Bounds = {
    rssMiBPerH: Number(values['rss-mib-per-h']),
    fdsPerH: Number(values['fds-per-h']),
    missedShare: Number(values['missed-per-million']) / 1e6,
    diskMiB: { recordings: RECORDER_MIB, queue: QUEUE_MIB, journal: JOURNAL_MIB },
  };
  const judged = judgeSoak(soak.samples, soak.deadlines, bounds);
  const date = new Date().toISOString().slice(0, 10);
  const out = values.out ?? (values.json ? undefined : join(root, 'bench', 'results', `soak-${date}.md`));
  const about = {
    date,
    commit: execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim(),
    machine: `${cpus()[0]?.model.trim()}, ${cpus().length} cores`,
    command: `npx tsx bench/soak.ts ${process.argv.slice(2).join(' ')}`.trim(),
    broker: broker.url === undefined ? 'embedded' : 'mosquitto',
    load,
  };
  const plot = out === undefined ? 'soak.svg' : out.replace(/\.md$/, '.svg');
  const report = soakReport(about, soak.samples, judged, soak.episodes, basename(plot));
  if (out !== undefined) {
    writeFileSync(join(dirname(out), basename(out)), report);
    writeFileSync(plot, soakSvg(soak.samples));
  }
  const document = { judged, episodes: soak.episodes, deadlines: soak.deadlines, samples: soak.samples.length, overall: overall(judged) };
  process.stdout.write(values.json ? `${JSON.stringify(document, null, 2)}\n` : report);
  const verdict = overall(judged);
  return verdict === 'kept' ? 0 : verdict === 'broken' ? 1 : 3;
}

process.exitCode = await main();
