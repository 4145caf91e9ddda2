/**
 * Hardware in the loop with real processes: bus, stream process and bridge are those of a robot, the table is simulated and follows what the bridge
 * measures.
 */
import t, { type Test } from 'tap';
import type { CliContext } from '../../src/cli/context.js';
import { runCli } from '../../src/cli/main.js';
import type { EpisodeSummary } from '../../src/runtime/summary.js';
import { fakeContext } from '../cli/fakes.js';
import type { FakePolicy } from '../control/fakes.js';
import { expertPolicy } from '../support/expert-policy.js';
import { makeHil } from '../support/hil.js';
import { alone } from '../support/real-time.js';

await alone(t);

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function run(argv: string[], policy: FakePolicy, parts: Partial<CliContext> = {}): Promise<Ran> {
  const { out, err, context } = fakeContext({ loadPolicy: async () => policy, ...parts });
  const code = await runCli(['run', ...argv], context);
  return { code, out: out.text, err: err.text };
}

t.test('the touch task is done through bus, stream process and bridge', async (t: Test) => {
  const hil = await makeHil(t, { more: 'task: {name: touch, seed: 3}\ncameras: {frame_age_max_ms: 2000, frame_skew_max_ms: 2000}\n' });
  const { code, out, err } = await run([hil.file, '--json'], await expertPolicy('touch', 3));
  t.equal(code, 0, err);
  const summary = JSON.parse(out) as EpisodeSummary;
  t.match(summary, { verdict: 'succeeded', success: true });
});
