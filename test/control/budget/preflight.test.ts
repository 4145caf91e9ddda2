/** The preflight against a policy of known costs: what it asks of it, and that it finds these costs. */
import t from 'tap';
import { CostModel, type PassCosts } from '../../../src/control/budget/cost.js';
import { measureCosts } from '../../../src/control/budget/preflight.js';
import type { Rung } from '../../../src/control/budget/types.js';
import type { Job, Policy, PredictNextOptions } from '../../../src/policy/contract.js';
import { jobWith, rung, timingOf } from './machine.js';

/** Answers as the machine of numbers does; `slow` is how slow each prediction is in turn. */
function policyOf(job: Job, slow: (call: number) => number = () => 1): { policy: Policy; calls: string[]; asked: PredictNextOptions[] } {
  const calls: string[] = [];
  const asked: PredictNextOptions[] = [];
  const [channels, frames, perFrame] = [job.used_action_channel_ids.length, job.frame_chunk_size, job.action_per_frame];
  const policy = {
    job,
    cache: { capacity: 24, valid: 24, committed: 24, predicted: 0, checksum: '' },
    reset: async () => void calls.push('reset'),
    predict: async () => {
      calls.push('predict');
      return { actions: Float32Array.from({ length: channels * frames * perFrame }, (_, index) => index) };
    },
    commit: async ({ obs }: { obs: unknown[] }) => void calls.push(`commit ${obs.length}`),
    occupy: async () => void calls.push('occupy'),
    predictNext: async (options: PredictNextOptions) => {
      calls.push('predictNext');
      asked.push(options);
      const executingFrames = options.executing.length / channels / perFrame;
      const think = { commitFrames: (options.obs?.length ?? 0) / 4, executingFrames, imagines: true };
      const steps: Rung = {
        videoSteps: options.videoSteps ?? 0,
        videoExecStep: options.videoExecStep ?? -1,
        actionSteps: options.actionSteps ?? 0,
        guidance: options.guidance ?? true,
        imagineSteps: options.imagineSteps ?? 0,
      };
      const guided = job.guidance_scale > 1 && steps.guidance;
      return { timing: timingOf(think, steps, { slowdown: slow(asked.length - 1), guided }) };
    },
  };
  return { policy: policy as unknown as Policy, calls, asked };
}

const costs = (video: PassCosts['video']): PassCosts => ({
  encodeMsPerMoment: 1,
  commitMsPerFrame: 10,
  video,
  action: [{ frames: 2, guided: false, passMs: 4 }],
  otherMs: 1,
});

t.test('an unguided job', async (t) => {
  const { policy, calls, asked } = policyOf(jobWith());
  const progress: string[] = [];
  const {
    costs: found,
    cache,
    repeats,
  } = await measureCosts({
    policy,
    rungs: [rung(5), rung(3, { guidance: false })],
    repeats: 2,
    onProgress: (done, total) => void progress.push(`${done}/${total}`),
  });
  t.same(calls, ['reset', 'predict', 'commit 4', 'occupy', ...Array(6).fill('predictNext')]);
  t.same(progress, ['0/6', '1/6', '2/6', '3/6', '4/6', '5/6', '6/6']);
  t.same({ valid: cache.valid, repeats }, { valid: 24, repeats: 2 });
  t.same(asked[0]?.obs?.length, 8);
  t.same([...(asked[5]?.executing ?? [])], [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19], 'one frame of each channel');
  const one = { frames: 1, guided: false, passMs: (30 + 4 - 2 * 4) / 3 };
  t.same(found, costs([{ frames: 2, guided: false, passMs: 20 }, one]));
  const model = new CostModel({ job: policy.job, costs: found });
  const think = { commitFrames: 2, executingFrames: 2, imagines: true };
  t.equal(model.stages(think, rung(5)).totalMs, timingOf(think, rung(5)).totalMs, 'the costs predict the machine');
});

t.test('a guided job: with guidance, and without where a rung does without', async (t) => {
  const job = jobWith({ guidance_scale: 5 });
  const both = policyOf(job);
  const found = await measureCosts({ policy: both.policy, rungs: [rung(5), rung(5, { guidance: false })], repeats: 1 });
  t.same(
    found.costs.video.filter(({ frames }) => frames === 2).map(({ guided, passMs }) => [guided, Math.round(passMs)]),
    [
      [true, 32],
      [false, 20],
    ],
  );
  t.same(found.costs.action, [{ frames: 2, guided: false, passMs: 4 }]);
  t.equal(both.asked.length, 8);
  const only = policyOf(job);
  await measureCosts({ policy: only.policy, rungs: [rung(5)], repeats: 1 });
  t.same([...new Set(only.asked.map(({ guidance }) => guidance))], [true]);
});

t.test('the first prediction of a kind and a single hiccup do not count', async (t) => {
  const { policy } = policyOf(jobWith(), (call) => (call % 4 === 0 ? 9 : call % 4 === 2 ? 5 : 1));
  const { costs: found } = await measureCosts({ policy, rungs: [rung(5)] });
  t.equal(found.video[0]?.passMs, 20);
  t.equal(found.commitMsPerFrame, 10);
});
