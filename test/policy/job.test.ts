/** Reading jobs: what is accepted, what is refused and how it is named, defaults, and warnings about misspelt keys. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { latentSizeOf, parseJob, readJob } from '../../src/policy/job.js';
import { errorOf, goldens, jobOf, smallJob, thrownBy } from '../support/fixtures.js';

const cases = ['franka_tiny', 'robotwin_tiny', 'nocfg_partial', 'bf16', 'i2va_tiny'];

t.test('the jobs of the golden cases are accepted, from the file and from the object', async (t) => {
  for (const name of cases) {
    const fromFile = await readJob(join(goldens, name, 'job.json'));
    const fromObject = await readJob(jobOf(name));
    t.same(fromFile.job, fromObject.job, name);
    t.same(fromFile.warnings, [], `${name}: the reference's own extra keys give no warning`);
    t.notOk('seed' in fromFile.job, `${name}: extra keys are left out`);
  }
});

t.test('defaults', (t) => {
  const { job } = parseJob(smallJob({ action_dim: undefined, norm_stat: { q01: new Array(30).fill(0), q99: new Array(30).fill(1) } }));
  t.match(job, {
    param_dtype: 'float32',
    patch_size: [1, 2, 2],
    infer_mode: 'server',
    env_type: 'none',
    action_dim: 30,
    video_exec_step: -1,
    action_norm_method: 'quantiles',
    bf16_input_cast: true,
  });
  t.equal(job.imagine_steps, undefined);
  t.throws(() => ((job as { height: number }).height = 1), 'a job is frozen');
  t.end();
});

t.test('the job given is neither changed nor frozen', (t) => {
  const raw = smallJob();
  const before = structuredClone(raw);
  parseJob(raw);
  t.same(raw, before);
  t.notOk(Object.isFrozen(raw['norm_stat']));
  t.end();
});

t.test('every required field is named when it is missing', (t) => {
  const optional = ['action_dim'];
  for (const field of Object.keys(smallJob()).filter((name) => !optional.includes(name))) {
    const error = thrownBy(() => parseJob(smallJob({ [field]: undefined })));
    t.equal(error.code, 'JOB_INVALID', field);
    t.ok(error.field?.startsWith(field), `${field}: names ${error.field}`);
    t.equal(error.found, 'nothing', field);
    t.ok(error.expected, field);
  }
  t.end();
});

const bad: [string, Record<string, unknown>, string][] = [
  ['a text for a number', { guidance_scale: '5' }, 'guidance_scale'],
  ['no number', { snr_shift: Number.NaN }, 'snr_shift'],
  ['a shift of 0', { action_snr_shift: 0 }, 'action_snr_shift'],
  ['half a step', { num_inference_steps: 2.5 }, 'num_inference_steps'],
  ['no step', { action_num_inference_steps: 0 }, 'action_num_inference_steps'],
  ['too many steps', { num_inference_steps: 1001 }, 'num_inference_steps'],
  ['an unknown env_type', { env_type: 'libero' }, 'env_type'],
  ['an unknown infer_mode', { infer_mode: 'train' }, 'infer_mode'],
  ['an unknown dtype', { param_dtype: 'float16' }, 'param_dtype'],
  ['an unknown normalisation', { action_norm_method: 'meanstd' }, 'action_norm_method'],
  ['two patch sizes', { patch_size: [2, 2] }, 'patch_size'],
  ['no camera', { obs_cam_keys: [] }, 'obs_cam_keys'],
  ['a camera twice', { obs_cam_keys: ['a', 'b', 'a'] }, 'obs_cam_keys[2]'],
  ['a camera that is no text', { obs_cam_keys: ['a', 7] }, 'obs_cam_keys[1]'],
  ['no channel', { used_action_channel_ids: [] }, 'used_action_channel_ids'],
  ['a channel twice', { used_action_channel_ids: [1, 2, 1] }, 'used_action_channel_ids[2]'],
  ['a channel outside action_dim', { used_action_channel_ids: [0, 6] }, 'used_action_channel_ids[1]'],
  ['a negative channel', { used_action_channel_ids: [-1] }, 'used_action_channel_ids[0]'],
  ['short quantiles', { norm_stat: { q01: [0], q99: [1, 1, 1, 1, 1, 1] } }, 'norm_stat.q01'],
  ['a quantile that is no number', { norm_stat: { q01: [0, 0, 0, 0, 0, 0], q99: [1, 1, 1, null, 1, 1] } }, 'norm_stat.q99[3]'],
  ['no window', { attn_window: 1 }, 'attn_window'],
  ['a height off the patch grid', { height: 48 }, 'height'],
  ['a width off the latent grid', { width: 33 }, 'width'],
  ['a width off the patch grid', { width: 48, obs_cam_keys: ['a'] }, 'width'],
  ['an action guidance without guidance', { guidance_scale: 1, action_guidance_scale: 2 }, 'action_guidance_scale'],
  ['video_exec_step 0', { video_exec_step: 0 }, 'video_exec_step'],
  ['video_exec_step past the last pass', { video_exec_step: 7 }, 'video_exec_step'],
  ['video_exec_step -2', { video_exec_step: -2 }, 'video_exec_step'],
  ['imagine_steps 0', { imagine_steps: 0 }, 'imagine_steps'],
  ['a cast that is no flag', { bf16_input_cast: 1 }, 'bf16_input_cast'],
  ['two cameras in the T layout', { env_type: 'robotwin_tshape', height: 64 }, 'obs_cam_keys'],
  ['a T layout with odd latent rows', { env_type: 'robotwin_tshape', obs_cam_keys: ['a', 'b', 'c'], height: 32 }, 'height'],
  ['a T layout with half cameras off the grid', { env_type: 'robotwin_tshape', obs_cam_keys: ['a', 'b', 'c'], height: 64, width: 48 }, 'width'],
];

t.test('what is wrong is named', (t) => {
  for (const [name, changes, field] of bad) {
    const error = thrownBy(() => parseJob(smallJob(changes)));
    t.equal(error.code, 'JOB_INVALID', name);
    t.equal(error.field, field, name);
    t.ok(error.expected && error.found && error.message.includes(error.expected) && error.message.includes(error.found), `${name}: ${error.message}`);
  }
  for (const raw of [null, 5, [], undefined]) t.equal(thrownBy(() => parseJob(raw)).code, 'JOB_INVALID');
  t.end();
});

t.test('the limits themselves are accepted', (t) => {
  const good: Record<string, unknown>[] = [
    { video_exec_step: 6 },
    { video_exec_step: 1 },
    { attn_window: 2 },
    { guidance_scale: 1.01, action_guidance_scale: 2 },
    { num_inference_steps: 1000 },
    { action_per_frame: 7 },
    { frame_chunk_size: 1 },
    { width: 48 }, // two cameras side by side: 6 latent columns, whole patches
    { env_type: 'robotwin_tshape', obs_cam_keys: ['a', 'b', 'c'], height: 64, width: 32 },
  ];
  for (const changes of good) t.doesNotThrow(() => parseJob(smallJob(changes)), JSON.stringify(changes));
  t.end();
});

t.test('latent sizes', (t) => {
  t.same(latentSizeOf(parseJob(jobOf('franka_tiny')).job), [4, 6]);
  t.same(latentSizeOf(parseJob(jobOf('robotwin_tiny')).job), [6, 4]);
  t.same(latentSizeOf({ env_type: 'robotwin_tshape', height: 256, width: 320, obs_cam_keys: ['a', 'b', 'c'] }), [24, 20]);
  t.end();
});

t.test('a key that looks misspelt is a warning, and helps when the right one is missing', (t) => {
  const { warnings } = parseJob(smallJob({ video_exec_steps: 3, imagineSteps: 2, robot: 'franka' }));
  t.equal(warnings.length, 2);
  t.match(warnings[0], /video_exec_steps.*did you mean video_exec_step\?/);
  t.match(warnings[1], /imagineSteps.*did you mean imagine_steps\?/);
  const error = thrownBy(() => parseJob(smallJob({ guidance_scale: undefined, guidence_scale: 5 })));
  t.equal(error.field, 'guidance_scale');
  t.match(error.message, /"guidence_scale"/);
  t.end();
});

t.test('all problems are listed, the first five in words', (t) => {
  const error = thrownBy(() => parseJob({}));
  t.match(error.message, /job\.obs_cam_keys: .*and 9 more/);
  t.end();
});

t.test('job files that cannot be used', async (t) => {
  const folder = t.testdir({ 'broken.json': '{"height": 64,', 'wrong.json': JSON.stringify(smallJob({ height: 1 })) });
  const absent = await errorOf(readJob(join(folder, 'absent.json')));
  t.equal(absent.code, 'JOB_MISSING');
  t.equal(absent.file, join(folder, 'absent.json'));
  mkdirSync(join(folder, 'folder.json'));
  const directory = await errorOf(readJob(join(folder, 'folder.json')));
  t.equal(directory.code, 'JOB_MISSING');
  t.equal(directory.found, 'a folder');
  const broken = await errorOf(readJob(join(folder, 'broken.json')));
  t.equal(broken.code, 'JOB_INVALID');
  t.equal(broken.file, join(folder, 'broken.json'));
  const wrong = await errorOf(readJob(join(folder, 'wrong.json')));
  t.equal(wrong.field, 'height');
  t.equal(wrong.file, join(folder, 'wrong.json'));
  writeFileSync(join(folder, 'wrong.json'), JSON.stringify(smallJob()));
  t.equal((await readJob(join(folder, 'wrong.json'))).job.height, 32, 'mended, it is read');
});
