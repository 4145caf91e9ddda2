/** Opening what a configuration describes: the scene of the task, tightened joints, and which job a policy gets. */
import { join } from 'node:path';
import t from 'tap';
import { type RobotConfig, robotConfigSchema } from '../../src/config/schema.js';
import { jobOf, openRig, policyOptions, tightened } from '../../src/runtime/rig.js';
import { JOINTS } from '../../src/sim/arm.js';
import { SIM_JOB } from '../../src/sim/job.js';
import { TASK_NAMES } from '../../src/sim/tasks/task.js';

function configOf(change: Readonly<Record<string, unknown>> = {}): RobotConfig {
  return robotConfigSchema.parse({ robot: { type: 'sim' }, policy: { checkpoint_dir: '/nowhere' }, ...change });
}

t.test('every task opens, with its scene and cameras at the start', async (t) => {
  for (const name of TASK_NAMES) {
    const rig = await openRig(configOf({ task: { name, seed: 4 } }));
    t.same([rig.task, rig.verdict()], [name, 'open']);
    t.ok(rig.instruction.length > 0 && rig.chunksMax > 1);
    const { timeNs } = await rig.robot.getState();
    t.equal(timeNs, 0n);
    t.same(
      (await rig.cameras.capture()).map(({ camera, capturedAtNs }) => [camera, capturedAtNs]),
      SIM_JOB.obs_cam_keys.map((key) => [key, 0n]),
    );
    await rig.close();
  }
});

t.test('instruction and chunks of the configuration come first', async (t) => {
  const rig = await openRig(configOf({ task: { instruction: 'press it' }, control: { chunks_max: 3 } }));
  t.same([rig.instruction, rig.chunksMax], ['press it', 3]);
  await rig.close();
  await t.rejects(openRig(configOf({ task: { name: 'juggle' } })), { code: 'SIM_TASK' });
});

t.test('limits are tightened joint by joint', async (t) => {
  t.same(tightened(JOINTS, {}), JOINTS);
  const [yaw, ...others] = tightened(JOINTS, { yaw: { upper_rad: 1, velocity_max_rad_per_s: 2 } });
  t.same(yaw, { ...JOINTS[0], upperRad: 1, velocityMaxRadPerS: 2 });
  t.match(tightened(JOINTS, { wrist: { acceleration_max_rad_per_s2: 5, jerk_max_rad_per_s3: 6 } })[3], {
    accelerationMaxRadPerS2: 5,
    jerkMaxRadPerS3: 6,
  });
  t.same(others, JOINTS.slice(1));
  const rig = await openRig(configOf({ control: { limits: { yaw: { upper_rad: 1 } } } }));
  t.equal(rig.robot.joints[0]?.upperRad, 1);
  await rig.close();
});

t.test('the job: that of the configuration, of the checkpoint, of the robot type', async (t) => {
  const dir = t.testdir({ 'job.json': '{}' });
  const policy = (change: Readonly<Record<string, unknown>>) => configOf({ policy: { checkpoint_dir: dir, ...change } }).policy;
  t.equal(jobOf(policy({ job: '/my/job.json' })), '/my/job.json');
  t.same(jobOf(policy({ job: { height: 1 } })), { height: 1 });
  t.equal(jobOf(policy({})), join(dir, 'job.json'));
  t.equal(jobOf(policy({ checkpoint_dir: '/nowhere' })), SIM_JOB);
  const options = policyOptions(configOf({ policy: { checkpoint_dir: dir, threads: 2, precision: 'bf16', isolate: false, device: 'cpu' } }));
  const expected = {
    checkpoint: dir,
    job: join(dir, 'job.json'),
    threads: 2,
    precision: 'bf16',
    allowUncertified: false,
    isolate: false,
    device: 'cpu',
  };
  t.same(options, expected);
  t.equal(policyOptions(configOf({ policy: { checkpoint_dir: dir, kv_cache: 'int8' } })).kvCache, 'int8');
});
