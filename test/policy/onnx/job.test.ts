/** The mapping of an exported policy: what is accepted, what every mistake is called, and the job that follows. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { camerasOf, contractJob, parseOnnxJob, readOnnxJob } from '../../../src/policy/onnx/job.js';
import { errorOf } from '../../support/fixtures.js';
import { cameraInput, type Json, smallMapping } from '../../support/onnx.js';

const output = (changes: Json): Json => ({ output: { name: 'actions', layout: '1HD', channels: [0, 1], ...changes } });
const inputs = (more: Json): Json => ({ inputs: { image: cameraInput(), ...more } });
const image = (changes: Json): Json => ({ inputs: { image: cameraInput(changes) } });
const state = (changes: Json = {}): Json => inputs({ joints: { from: 'state', ...changes } });
const words = (changes: Json = {}): Json => inputs({ text: { from: 'instruction', words: { red: 1 }, length: 4, ...changes } });

t.test('a whole mapping, with its defaults', async (t) => {
  const job = parseOnnxJob(
    smallMapping({
      ...inputs({
        wrist: cameraInput({ camera: 'wrist', scale: 0.5, mean: [1, 2, 3], std: [1, 2, 3], order: 'bgr', resize: 'area' }),
        joints: { from: 'state', joints: [1], mean: [0.5], std: [2] },
        text: { from: 'instruction', words: { red: 1, green: 2 }, length: 4, unknown: 9 },
        latent: { from: 'constant', shape: [1, 3], value: 0 },
      }),
      ...output({ values: 'from_state', min: [-1, -2], max: [1, 2] }),
      prompt: 'touch',
    }),
  );
  t.match(job, { frameChunkSize: 2, actionPerFrame: 4, prompt: 'touch' });
  t.match(job.inputs['image'], { resize: 'none', order: 'rgb' });
  t.match(job.inputs['text'], { padding: 0, unknown: 9 });
  t.equal(job.output.values, 'from_state');
  t.same(camerasOf(job), ['observation.images.cam_front', 'wrist']);
  t.match(contractJob(job), {
    obs_cam_keys: ['observation.images.cam_front', 'wrist'],
    used_action_channel_ids: [0, 1],
    action_dim: 2,
    frame_chunk_size: 2,
    action_per_frame: 4,
    height: 2,
    width: 4,
    infer_mode: 'server',
    prompt: 'touch',
  });
  t.equal(parseOnnxJob(smallMapping()).output.values, 'absolute');
});

const mistakes: readonly [string, unknown, string, RegExp][] = [
  ['no object', [], 'job', /an object/],
  ['another format', smallMapping({ format: 'other' }), 'job.format', /"premotor-onnx"/],
  ['another version', smallMapping({ version: 2 }), 'job.version', /1/],
  ['a missing field', smallMapping({ frame_chunk_size: undefined }), 'job.frame_chunk_size', /whole number of 1 \.\. 256/],
  ['a misspelt field', smallMapping({ action_per_frames: 4 }), 'job.action_per_frames', /one of format/],
  ['no inputs', smallMapping({ inputs: {} }), 'job.inputs', /names of the model's inputs/],
  ['an input from nowhere', smallMapping(inputs({ a: { from: 'radar' } })), 'job.inputs.a.from', /"camera" or "state"/],
  ['an input without a source', smallMapping(inputs({ a: {} })), 'job.inputs.a.from', /"camera" or "state"/],
  ['a misspelt key of an input', smallMapping(image({ widht: 3 })), 'job.inputs.image.widht', /one of from, camera/],
  ['an unknown layout', smallMapping(image({ layout: 'NWHC' })), 'job.inputs.image.layout', /"NCHW" or "NHWC"/],
  ['half a normalisation', smallMapping(image({ mean: [0, 0, 0] })), 'job.inputs.image.std', /because mean is given/],
  ['a deviation of 0', smallMapping(image({ mean: [0, 0, 0], std: [1, 0, 1] })), 'job.inputs.image.std[1]', /three numbers above 0/],
  ['bytes that are scaled', smallMapping(image({ dtype: 'u8', scale: 0.1 })), 'job.inputs.image.scale', /dtype u8 takes pictures as they are/],
  ['bytes that are normalised', smallMapping(image({ dtype: 'u8', mean: [0, 0, 0], std: [1, 1, 1] })), 'job.inputs.image.mean', /nothing/],
  ['no camera', smallMapping({ inputs: { joints: { from: 'state' } } }), 'job.inputs', /at least one input from a camera/],
  ['a joint that is not there', smallMapping(state({ joints: [0, 2] })), 'job.inputs.joints.joints[1]', /a joint below 2/],
  ['means for other joints', smallMapping(state({ mean: [1], std: [1] })), 'job.inputs.joints.mean', /2 numbers, one per joint/],
  ['no words', smallMapping(words({ words: {} })), 'job.inputs.text.words', /words with their numbers/],
  [
    'a constant of another size',
    smallMapping(inputs({ z: { from: 'constant', shape: [2], value: [1] } })),
    'job.inputs.z.value',
    /or 2 for the shape/,
  ],
  ['an output without a name', smallMapping(output({ name: '' })), 'job.output.name', /the name of an output/],
  ['a channel twice', smallMapping(output({ channels: [1, 1] })), 'job.output.channels[1]', /each channel once/],
  ['two denormalisations', smallMapping(output({ mean: [0], std: [1], min: [0], max: [1] })), 'job.output', /mean and std, or min and max/],
  ['half a range', smallMapping(output({ max: [1, 1] })), 'job.output.min', /because max is given/],
  ['an empty range', smallMapping(output({ min: [0, 1], max: [1, 1] })), 'job.output.max[1]', /more than min \(1\)/],
  ['values of another meaning', smallMapping(output({ values: 'delta' })), 'job.output.values', /"absolute" or "from_state"/],
];

for (const [name, mapping, field, expected] of mistakes) {
  t.test(`refused: ${name}`, async (t) => {
    const error = await errorOf((async () => parseOnnxJob(mapping))());
    t.equal(error.code, 'JOB_INVALID');
    t.equal(error.field, field);
    t.match(error.expected, expected);
    t.ok(error.found);
    t.match(error.message, /docs\/ONNX\.md/);
  });
}

t.test('a misspelt name is recognised, and all problems are told at once', async (t) => {
  const error = await errorOf((async () => parseOnnxJob(smallMapping({ ...image({ heights: 3, layout: 'X' }), frame_chunk_size: 2 })))());
  t.match(error.message, /did you mean height\?/);
  t.match(error.message, /job\.inputs\.image\.layout: expected/);
});

t.test('files', async (t) => {
  const dir = t.testdir({ 'good.json': JSON.stringify(smallMapping()), 'bad.json': '{' });
  t.match(await readOnnxJob(join(dir, 'good.json')), { frameChunkSize: 2 });
  t.match(await errorOf(readOnnxJob(join(dir, 'none.json'))), { code: 'JOB_MISSING', file: join(dir, 'none.json') });
  t.match(await errorOf(readOnnxJob(join(dir, 'bad.json'))), { code: 'JOB_INVALID', field: 'job', expected: 'JSON' });
  writeFileSync(join(dir, 'good.json'), JSON.stringify(smallMapping({ version: 3 })));
  t.match(
    await errorOf(readOnnxJob(join(dir, 'good.json'))),
    { code: 'JOB_INVALID', file: join(dir, 'good.json'), found: '3' },
    'valid becomes invalid',
  );
});
