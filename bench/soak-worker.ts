/**
 * The supervisor of a soak: runs one episode of a configuration after the other until it is told to end, and says how each went and how late its
 * event
 * loop is. Forked by bench/soak.ts; everything that a robot has is on, as configured.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { readRobotConfig } from '../src/config/reader.js';
import { PremotorError } from '../src/errors.js';
import { loadPolicy } from '../src/policy/load.js';
import { runEpisode } from '../src/runtime/episode.js';
import { VOCABULARY } from '../src/runtime/rig.js';

export type Told =
  | {
      readonly type: 'episode';
      readonly outcome: string;
      readonly success: boolean;
      readonly cycles: number;
      readonly missed: number;
      readonly error: string | null;
    }
  | { readonly type: 'loop'; readonly p99Ms: number; readonly maxMs: number }
  | { readonly type: 'warning'; readonly code: string; readonly message: string };

const LOOP_TOLD_MS = 5000;
const LOOP_RESOLUTION_MS = 5;
const NS_PER_MS = 1e6;

const tell = (told: Told): void => void process.send?.(told);
const warn = ({ code, message }: PremotorError): void => tell({ type: 'warning', code, message });

const { config } = await readRobotConfig(process.argv[2] ?? '', VOCABULARY);
const ending = new AbortController();
process.on('message', () => ending.abort(new PremotorError('ABORTED', 'The soak is over.')));

const delay = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });
delay.enable();
const timer = setInterval(() => {
  // The histogram counts the resolution itself.
  const late = (ns: number): number => Math.max(0, ns / NS_PER_MS - LOOP_RESOLUTION_MS);
  tell({ type: 'loop', p99Ms: late(delay.percentile(99)), maxMs: late(delay.max) });
  delay.reset();
}, LOOP_TOLD_MS);

const nothing = (): void => undefined;
for (let seed = config.task.seed; !ending.signal.aborted; seed++) {
  try {
    const { summary } = await runEpisode(
      { ...config, task: { ...config.task, seed } },
      {
        loadPolicy,
        observer: {
          ready: nothing,
          cycle: nothing,
          decoding: nothing,
          decoded: nothing,
          noAnimation: nothing,
          resumed: nothing,
          recovery: nothing,
          warning: warn,
          notice: nothing,
        },
        signal: ending.signal,
      },
    );
    const { outcome, success, motion, error } = summary;
    tell({ type: 'episode', outcome, success: success === true, cycles: motion.cycles, missed: motion.missed, error: error?.code ?? null });
  } catch (error) {
    if (ending.signal.aborted) break;
    if (!(error instanceof PremotorError)) throw error;
    tell({ type: 'episode', outcome: 'failed', success: false, cycles: 0, missed: 0, error: error.code });
  }
}
clearInterval(timer);
process.disconnect();
