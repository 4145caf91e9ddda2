/** The budget in the control cycle: an episode on stand-ins whose policy is slow for a while gets cheaper rungs, and better ones again. */
import t from 'tap';
import type { PassCosts } from '../../../src/control/budget/cost.js';
import { LadderBudget } from '../../../src/control/budget/ladder-budget.js';
import type { Think } from '../../../src/control/budget/types.js';
import { ControlCycle } from '../../../src/control/cycle.js';
import type { Chunk, PredictNextOptions, PredictOptions } from '../../../src/policy/contract.js';
import { type ActionAt, FakeCameras, FakePolicy, FakeRobot } from '../fakes.js';
import { COSTS, LADDER, rung, timingOf } from './machine.js';

const CHUNKS = 60;
const SLOW_FROM = 20;
const SLOW_TO = 30;
const swing: ActionAt = (channel, knot) => Math.fround(0.3 * Math.sin((knot + 1) / 12 + channel) - 0.3 * Math.sin(channel));

/** Reports what the machine of numbers would take for the steps that it was asked for. */
class TimedPolicy extends FakePolicy {
  readonly asked: (number | undefined)[] = [];

  override async predict(options: PredictOptions = {}): Promise<Chunk> {
    return this.#timed(await super.predict(options), options, { commitFrames: 0, executingFrames: 0, imagines: false });
  }

  override async predictNext(options: PredictNextOptions): Promise<Chunk> {
    const perFrame = this.job.used_action_channel_ids.length * this.job.action_per_frame;
    const [commitFrames, executingFrames] = [(options.executed?.length ?? 0) / perFrame, options.executing.length / perFrame];
    return this.#timed(await super.predictNext(options), options, { commitFrames, executingFrames, imagines: true });
  }

  #timed(chunk: Chunk, options: PredictNextOptions | PredictOptions, think: Think): Chunk {
    const { videoSteps = 0, videoExecStep = -1, actionSteps = 0, guidance = true } = options;
    const imagineSteps = 'imagineSteps' in options ? (options.imagineSteps ?? 0) : 0;
    const slowdown = this.asked.length >= SLOW_FROM && this.asked.length < SLOW_TO ? 3 : 1;
    this.asked.push(
      LADDER.findIndex((one) => one.videoSteps === videoSteps && one.videoExecStep === videoExecStep && one.actionSteps === actionSteps),
    );
    return { ...chunk, timing: timingOf(think, rung(videoSteps, { videoExecStep, actionSteps, guidance, imagineSteps }), { slowdown }) };
  }
}

t.test('throttling in the middle of an episode', async (t) => {
  const policy = new TimedPolicy(swing, { frame_chunk_size: 2, action_per_frame: 8 });
  const robot = new FakeRobot();
  const costs: PassCosts = { ...COSTS, video: [...COSTS.video, { frames: 1, guided: false, passMs: 10 }] };
  const budget = new LadderBudget(LADDER, { job: policy.job, costs, availableMsMax: 640 });
  const cycle = new ControlCycle({ policy, robot, cameras: new FakeCameras(robot), mode: 'async-grounded', actionRateHz: 25, budget });
  await cycle.arm();
  const report = await cycle.run({ prompt: 'x', chunks: CHUNKS });
  t.equal(report.outcome, 'finished', report.error?.message ?? 'no error');
  const { asked } = policy;
  t.notOk(asked.includes(-1), 'every prediction was asked for with the steps of a rung');
  t.equal(asked[SLOW_FROM - 1], 0, asked.join(''));
  const after = asked.slice(SLOW_FROM + 2, SLOW_TO);
  t.ok(
    after.every((index) => (index ?? 0) > 0),
    `after two slow predictions a cheaper rung: ${asked.join('')}`,
  );
  t.equal(asked.at(-1), 0, `the best rung again: ${asked.join('')}`);
});
