/**
 * A thousand times open, reset, predict, commit, close: resident memory stays flat. What the engine holds for one session (weights, cache, text
 * encoder) is some megabytes here, so losing even a hundredth of a session each time would show.
 */
import { readFileSync } from 'node:fs';
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import { loadPolicy } from '../../src/index.js';
import { momentsOf, readGolden } from '../support/golden.js';

const CYCLES = 1000;
/** Allocators and V8 settle during the first cycles. */
const WARM_UP = 400;
/**
 * Memory is looked at so often at the end of the warming up and at the end of all, and the least counts: V8 returns its pages late and by tens of
 * megabytes, so a single look says nothing.
 */
const LOOKS = 20;
const CYCLES_OF_LOOK = 5;
const GROWTH_BYTES_MAX = 8 * 1024 * 1024;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

interface Memory {
  readonly nativeBytes: number;
  readonly scriptBytes: number;
}

/**
 * What is used by the addon and by scripts. Of the first: anonymous memory that is resident (file pages of the checkpoint's maps come and go with the
 * page cache) without V8's own pages, which V8 takes and returns by tens of megabytes as it likes.
 */
function memoryNow(): Memory {
  collectGarbage();
  const line = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'));
  const { total_physical_size, used_heap_size } = getHeapStatistics();
  return { nativeBytes: Number(line?.[1]) * 1024 - total_physical_size, scriptBytes: used_heap_size };
}

/** The least memory of several looks. */
class Least implements Memory {
  nativeBytes = Number.POSITIVE_INFINITY;
  scriptBytes = Number.POSITIVE_INFINITY;

  /** Looks in the last cycles before `end`. */
  lookBefore(end: number, cycle: number): void {
    if (cycle >= end || cycle < end - LOOKS * CYCLES_OF_LOOK) return;
    const { nativeBytes, scriptBytes } = memoryNow();
    this.nativeBytes = Math.min(this.nativeBytes, nativeBytes);
    this.scriptBytes = Math.min(this.scriptBytes, scriptBytes);
  }
}

t.test('open, predict, commit and close leave nothing behind', { timeout: 900_000 }, async (t) => {
  const golden = readGolden('nocfg_partial');
  const [first, second] = [golden.calls[1], golden.calls[2]];
  if (first === undefined || second === undefined) throw new Error('the case has an infer and a kv call');
  const obs = momentsOf(golden, first)[0] ?? [];
  const moments = momentsOf(golden, second);
  const actions = golden.tensors.get(`${second.prefix}.state`)?.data as Float32Array;
  const [settled, now] = [new Least(), new Least()];
  for (let cycle = 0; cycle < CYCLES; cycle++) {
    if (cycle % CYCLES_OF_LOOK === 0)
      for (const [end, least] of [
        [WARM_UP, settled],
        [CYCLES, now],
      ] as const)
        least.lookBefore(end, cycle);
    const policy = await loadPolicy({ checkpoint: golden.checkpoint, job: golden.job, promptCache: false, threads: 1 });
    await policy.reset({ prompt: 'leak test' });
    await policy.predict({ obs, seed: cycle, videoSteps: 2, actionSteps: 1 });
    if (cycle % 4 === 0) await policy.commit({ obs: moments, actions });
    await policy.close();
  }
  for (const kind of ['nativeBytes', 'scriptBytes'] as const) {
    const growth = now[kind] - settled[kind];
    t.comment(`${kind} grew by ${(growth / 1024).toFixed(0)} KiB over ${CYCLES - WARM_UP} cycles, from ${(settled[kind] / 2 ** 20).toFixed(0)} MiB`);
    t.ok(settled[kind] > 0 && growth < GROWTH_BYTES_MAX, `${kind}: growth stays below ${GROWTH_BYTES_MAX / 2 ** 20} MiB`);
  }
});
