/** Which rungs may be used: those with a certificate of this checkpoint and these steps that they passed. Valid, invalid, and valid again. */
import t from 'tap';
import { certificateProblems, ladderOf } from '../../../src/control/budget/ladder.js';
import type { Job } from '../../../src/policy/contract.js';
import { thrownBy } from '../../support/fixtures.js';
import { jobWith } from './machine.js';

const HASH = 'ab'.repeat(32);
const base = { video_steps: 5, video_exec_step: -1, action_steps: 10, guidance: true, imagine_steps: 5 };
const certificate = {
  date: '2026-01-02T03:04:05.000Z',
  checkpoint: HASH,
  tool: '0.1.0',
  tasks: ['touch'],
  episodes: 200,
  seed: 30000,
  success: 0.9,
  base_success: 0.91,
  difference_points: -1,
  interval_points: [-5, 1.1],
  margin_points: 5,
  mode: 'sync',
  rung: 'video 3 of 3, actions 10, imagine 3, unguided',
  base: 'video 5, actions 10, imagine 5, guided',
};
const second = (changes: Record<string, unknown> = {}) => ({
  video_steps: 3,
  video_exec_step: 3,
  action_steps: 10,
  guidance: false,
  imagine_steps: 3,
  certificate: { ...certificate, ...changes },
});
const jobOf = (...ladder: unknown[]): Job => jobWith({ ladder });

t.test('a certified ladder', async (t) => {
  t.same(ladderOf(jobOf(base, second()), HASH), [
    { videoSteps: 5, videoExecStep: -1, actionSteps: 10, guidance: true, imagineSteps: 5 },
    { videoSteps: 3, videoExecStep: 3, actionSteps: 10, guidance: false, imagineSteps: 3 },
  ]);
  t.equal(ladderOf(jobOf(base), 'another').length, 1, 'the first rung needs no certificate');
  t.same(ladderOf(jobWith(), HASH), [], 'a job without a ladder');
});

t.test('refused with its reason, unless forced', async (t) => {
  const refused: [string, Record<string, unknown>, RegExp, RegExp][] = [
    ['none', { certificate: undefined }, /a certificate of "video 3 of 3/, /none/],
    ['another checkpoint', second({ checkpoint: 'cd'.repeat(32) }), /of checkpoint abab/, /cdcd/],
    ['too wide an interval', second({ interval_points: [-5.01, 1] }), /at most 5 points below/, /begins at -5\.01 points/],
    ['steps changed since', { action_steps: 8 }, /actions 8/, /actions 10, imagine 3/],
    ['the first rung changed since', second({ base: 'video 7, actions 10, imagine 7, guided' }), /against "video 5/, /against "video 7/],
  ];
  for (const [what, changes, expected, found] of refused) {
    const job = jobOf(base, { ...second(), ...changes });
    const error = thrownBy(() => ladderOf(job, HASH));
    t.match(error, { code: 'LADDER_UNCERTIFIED', field: 'ladder[1]', expected, found }, what);
    t.match(error.message, 'premotor eval certify', what);
    t.equal(ladderOf(job, HASH, { force: true }).length, 2, `${what}, forced`);
    t.equal(ladderOf(jobOf(base, second()), HASH).length, 2, 'put right again');
  }
});

t.test('every rung is looked at', async (t) => {
  const third = { ...second(), video_steps: 2, video_exec_step: 2, certificate: undefined };
  t.same(
    certificateProblems(jobOf(base, second({ checkpoint: 'cd'.repeat(32) }), third), HASH).map(({ field }) => field),
    ['ladder[1]', 'ladder[2]'],
  );
});

t.test("the first rung is the job's own steps, forced or not", async (t) => {
  const job = jobOf({ ...base, video_steps: 4 });
  for (const force of [false, true]) {
    t.match(
      thrownBy(() => ladderOf(job, HASH, { force })),
      { code: 'JOB_INVALID', field: 'ladder[0]', expected: /video 5/, found: /video 4/ },
    );
  }
  t.equal(ladderOf(jobWith({ ladder: [{ ...base, imagine_steps: 2 }], imagine_steps: 2 }), HASH).length, 1);
});
