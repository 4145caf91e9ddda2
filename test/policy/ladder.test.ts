/** Ladders in job files: what is accepted and what it becomes, what is refused and how it is named. */
import t from 'tap';
import { parseJob } from '../../src/policy/job.js';
import { stepsText } from '../../src/policy/ladder.js';
import { execStepAtMost, sigmas } from '../../src/policy/schedule.js';
import { smallJob, thrownBy } from '../support/fixtures.js';

const rung = (changes: Record<string, unknown> = {}): Record<string, unknown> => ({
  video_steps: 5,
  video_exec_step: -1,
  action_steps: 10,
  guidance: true,
  imagine_steps: 5,
  ...changes,
});
const certificate = (changes: Record<string, unknown> = {}): Record<string, unknown> => ({
  date: '2026-01-02T03:04:05.000Z',
  checkpoint: 'ab'.repeat(32),
  tool: '0.1.0',
  tasks: ['touch'],
  episodes: 200,
  seed: 30000,
  success: 0.9,
  base_success: 0.91,
  difference_points: -1,
  interval_points: [-3.2, 1.1],
  margin_points: 5,
  mode: 'sync',
  rung: 'video 3, actions 10, imagine 3, guided',
  base: 'video 5, actions 10, imagine 5, guided',
  ...changes,
});
const jobWith = (ladder: unknown) => parseJob(smallJob({ ladder }));

t.test('a ladder is read, and read again', async (t) => {
  const given = [rung(), rung({ video_steps: 3, imagine_steps: 3, certificate: certificate() })];
  const { job, warnings } = jobWith(given);
  t.same(job.ladder, given);
  t.same(warnings, []);
  t.ok(Object.isFrozen(job.ladder?.[1]?.certificate));
  t.same(parseJob(job).job, job, 'a parsed job is a job');
  t.notOk('ladder' in parseJob(smallJob()).job);
});

t.test('where to stop: by pass, by noise level, or not at all', async (t) => {
  const steps = (changes: Record<string, unknown>) => jobWith([rung({ video_exec_step: undefined, ...changes })]).job.ladder?.[0]?.video_exec_step;
  t.equal(steps({}), -1);
  t.equal(steps({ video_exec_step: 6 }), 6);
  t.equal(steps({ stop_sigma: 0.6 }), 4);
  t.notOk('stop_sigma' in (jobWith([rung({ video_exec_step: undefined, stop_sigma: 0.6 })]).job.ladder?.[0] ?? {}));
});

t.test('the pass that brings the noise level down to at most so much', async (t) => {
  t.same(
    sigmas(5, 5).map((sigma) => sigma.toFixed(4)),
    ['1.0000', '0.9524', '0.8824', '0.7692', '0.5556'],
    'the levels of docs/MODEL.md',
  );
  for (const [steps, shift, stop, pass] of [
    [5, 5, 0.6, 4],
    [5, 5, 0.5556, 4],
    [5, 5, 0.55, 5],
    [5, 5, 0.96, 1],
    [5, 5, 0.9524, 1],
    [5, 5, 0.95, 2],
    [5, 5, 0, 5],
    [3, 5, 0.6, 3],
    [4, 1, 0.5, 2],
    [1, 5, 0.99, 1],
  ] as const) {
    t.equal(execStepAtMost(steps, shift, stop), pass, `${stop} of ${steps} steps`);
  }
});

t.test('what is refused, and its name', async (t) => {
  const second = (changes: Record<string, unknown>) => [rung(), rung({ video_steps: 3, ...changes })];
  const certified = (changes: Record<string, unknown>) => second({ certificate: certificate(changes) });
  const bad: [string, unknown, string, RegExp][] = [
    ['no list', { 0: rung() }, 'ladder', /1 \.\. 16 rungs/],
    ['no rung', [], 'ladder', /1 \.\. 16 rungs/],
    ['too many', Array.from({ length: 17 }, (_, index) => rung({ video_steps: index + 1 })), 'ladder', /1 \.\. 16 rungs/],
    ['a number for a rung', [rung(), 3], 'ladder[1]', /an object with video_steps/],
    ['no steps', second({ video_steps: undefined }), 'ladder[1].video_steps', /1 \.\. 1000/],
    ['half a step', second({ action_steps: 2.5 }), 'ladder[1].action_steps', /1 \.\. 1000/],
    ['too many steps', second({ imagine_steps: 1001 }), 'ladder[1].imagine_steps', /1 \.\. 1000/],
    ['guidance by scale', second({ guidance: 5 }), 'ladder[1].guidance', /true or false/],
    ['pass 0', second({ video_exec_step: 0 }), 'ladder[1].video_exec_step', /1 \.\. 4/],
    ['a pass that does not exist', second({ video_exec_step: 5 }), 'ladder[1].video_exec_step', /1 \.\. 4/],
    ['pass and level', second({ video_exec_step: 2, stop_sigma: 0.5 }), 'ladder[1].stop_sigma', /either/],
    ['level 1', second({ video_exec_step: undefined, stop_sigma: 1 }), 'ladder[1].stop_sigma', /not including, 1/],
    ['a misspelt field', second({ video_step: 3 }), 'ladder[1].video_step', /one of video_steps/],
    ['the same steps twice', [rung(), rung({ video_steps: 3 }), rung()], 'ladder[2]', /each rung once/],
    ['a certificate that is a text', second({ certificate: 'yes' }), 'ladder[1].certificate', /eval certify/],
    ['a certificate without an interval', certified({ interval_points: undefined }), 'ladder[1].certificate.interval_points', /two numbers/],
    ['half an interval', certified({ interval_points: [1] }), 'ladder[1].certificate.interval_points', /two numbers/],
    ['no checkpoint hash', certified({ checkpoint: 'tabletop' }), 'ladder[1].certificate.checkpoint', /SHA-256/],
    ['percent for a share', certified({ success: 90 }), 'ladder[1].certificate.success', /0 \.\. 1/],
    ['no date', certified({ date: 'yesterday' }), 'ladder[1].certificate.date', /a time such as/],
    ['no tasks', certified({ tasks: [] }), 'ladder[1].certificate.tasks', /task names/],
    ['a negative margin', certified({ margin_points: -5 }), 'ladder[1].certificate.margin_points', /0 \.\. 100/],
    ['a signature', certified({ signed: true }), 'ladder[1].certificate.signed', /one of date/],
  ];
  for (const [what, ladder, field, expected] of bad) {
    const error = thrownBy(() => jobWith(ladder));
    t.equal(error.code, 'JOB_INVALID', what);
    t.equal(error.field, field, what);
    t.match(error.expected, expected, what);
  }
});

t.test('steps as one text: equal for equal steps only', async (t) => {
  const base = { video_steps: 5, video_exec_step: -1, action_steps: 10, guidance: true, imagine_steps: 5 };
  t.equal(stepsText(base), 'video 5, actions 10, imagine 5, guided');
  t.equal(stepsText({ ...base, video_exec_step: 3, guidance: false }), 'video 3 of 5, actions 10, imagine 5, unguided');
  const changes = [{ video_steps: 4 }, { video_exec_step: 5 }, { action_steps: 9 }, { guidance: false }, { imagine_steps: 4 }];
  t.equal(new Set([base, ...changes.map((change) => ({ ...base, ...change }))].map(stepsText)).size, 6);
});
