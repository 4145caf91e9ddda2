/** Opening an exported policy: what is wrong with its files, how job and model can differ, and a package that is missing. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { LoadPolicyOptions } from '../../../src/policy/contract.js';
import { loadPolicy } from '../../../src/policy/load.js';
import { openOnnx } from '../../../src/policy/onnx/open.js';
import { weightsOf } from '../../../src/policy/onnx/weights.js';
import { errorOf } from '../../support/fixtures.js';
import { ACT_TOUCH, cameraInput, imageEcho, imageSpec, type Json, policyFolder, smallMapping, withoutRuntime } from '../../support/onnx.js';
import { echoModel, onnxModel, type ValueSpec } from '../../support/onnx-model.js';

const skip = withoutRuntime;

const folder = (t: Test, model: Uint8Array | undefined, mapping: unknown): string => policyFolder(model, mapping, t.testdir());
const options = (checkpoint: string, more: Partial<LoadPolicyOptions> = {}): LoadPolicyOptions => ({
  checkpoint,
  backend: 'onnx',
  job: join(checkpoint, 'job.json'),
  threads: 1,
  ...more,
});

t.test('the shipped policy', { skip }, async (t) => {
  const policy = await openOnnx(options(ACT_TOUCH));
  t.teardown(() => policy.close());
  t.match(policy.info, {
    device: 'cpu',
    backend: /^onnxruntime 1\./,
    precision: 'f32',
    checkpointHash: /^[0-9a-f]{64}$/,
    latentShape: [0, 2, 0, 0],
    actionShape: [4, 2, 8],
    usesState: true,
    modes: ['sync', 'ensemble', 'async-naive'],
    cacheBytes: 0,
  });
  t.ok(policy.info.parameters > 200_000 && policy.info.weightBytes < 2e6, `${policy.info.parameters} parameters in ${policy.info.weightBytes} bytes`);
  t.match(policy.job, { obs_cam_keys: ['observation.images.cam_front'], frame_chunk_size: 2, action_per_frame: 8 });
});

t.test('the package is not installed', async (t) => {
  const dir = folder(t, imageEcho(), smallMapping());
  const importRuntime = () => import('a-package-that-is-not-there' as string);
  const error = await errorOf(openOnnx(options(dir), { importRuntime }));
  t.match(error, { code: 'ONNX_MISSING', expected: 'onnxruntime-node', message: /npm install onnxruntime-node/ });
});

t.test('files', { skip }, async (t) => {
  const dir = folder(t, imageEcho(), smallMapping());
  const model = join(dir, 'model.onnx');
  await (await openOnnx(options(dir))).close();
  t.match(await errorOf(openOnnx(options(join(dir, 'none')))), { code: 'JOB_MISSING' });
  // Valid becomes invalid: bytes are lost, changed, and the file is gone.
  const whole = readFileSync(model);
  for (const [name, bytes] of [
    ['cut', whole.subarray(0, whole.length >> 1)],
    ['empty', new Uint8Array(0)],
    ['foreign', Buffer.from('not a model at all')],
  ] as const) {
    writeFileSync(model, bytes);
    t.match(await errorOf(openOnnx(options(dir))), { code: 'ONNX_MODEL', file: model }, name);
  }
  rmSync(model);
  t.match(await errorOf(openOnnx(options(dir))), { code: 'CHECKPOINT_MISSING_FILE', file: model });
});

t.test('weights in another file, and how many there are', { skip }, async (t) => {
  const build = (isExternal: boolean): Uint8Array =>
    onnxModel({
      inputs: [imageSpec()],
      outputs: [{ name: 'actions', type: 'float32', shape: [1, 8, 2] }],
      nodes: [{ op: 'Identity', inputs: ['weights'], outputs: ['actions'] }],
      tensors: [{ name: 'weights', shape: [1, 8, 2], data: new Float32Array(16), isExternal }],
    });
  t.same(weightsOf(build(false)), { parameters: 16, isExternal: false });
  t.same(weightsOf(build(true)), { parameters: 16, isExternal: true });
  t.equal(weightsOf(build(false).subarray(0, 40)), undefined);
  const dir = folder(t, build(false), smallMapping());
  const policy = await openOnnx(options(dir));
  t.equal(policy.info.parameters, 16);
  await policy.close();
  writeFileSync(join(dir, 'model.onnx'), build(true));
  t.match(await errorOf(openOnnx(options(dir))), { code: 'ONNX_MODEL', found: /another file/, message: /external_data=False/ });
});

const joints: ValueSpec = { name: 'joints', type: 'float32', shape: [1, 2] };
const withInputs = (more: Json): Json => smallMapping({ inputs: { image: cameraInput(), ...more } });
const echo = (...more: ValueSpec[]): Uint8Array => echoModel([imageSpec(), ...more], 'image', [1, 12, 2]);
const output = (changes: Json): Json => smallMapping({ output: { name: 'actions', layout: '1HD', channels: [0, 1], ...changes } });

interface Mismatch {
  readonly name: string;
  readonly model: Uint8Array;
  readonly mapping: Json;
  readonly code: string;
  readonly field: string;
  readonly expected: RegExp;
  readonly found: RegExp;
}
const input = (name: string, model: Uint8Array, mapping: Json, field: string, expected: RegExp, found: RegExp): Mismatch => ({
  name,
  model,
  mapping,
  code: 'ONNX_INPUT_MISMATCH',
  field,
  expected,
  found,
});
const result = (name: string, model: Uint8Array, mapping: Json, field: string, expected: RegExp, found: RegExp): Mismatch => ({
  ...input(name, model, mapping, field, expected, found),
  code: 'ONNX_OUTPUT_MISMATCH',
});

const halfModel = onnxModel({
  inputs: [imageSpec()],
  outputs: [{ name: 'actions', type: 'float16', shape: [1, 3, 2, 4] }],
  nodes: [{ op: 'Cast', inputs: ['image'], outputs: ['actions'], attributes: { to: 10 } }],
});

const mismatches: readonly Mismatch[] = [
  input(
    'an input without a source',
    echo(joints),
    smallMapping(),
    'inputs.joints',
    /a source, because the model has this input \(float32 \[1, 2\]\)/,
    /none/,
  ),
  input('a source without an input', echo(), withInputs({ joints: { from: 'state' } }), 'inputs.joints', /an input of the model: image/, /"joints"/),
  input('a misspelt input', echo(joints), withInputs({ joint: { from: 'state' } }), 'inputs.joint', /image, joints/, /did you mean joints\?/),
  input(
    'a picture of another type',
    echo(),
    smallMapping({ inputs: { image: cameraInput({ dtype: 'u8' }) } }),
    'inputs.image',
    /type uint8/,
    /float32/,
  ),
  input(
    'a picture of another layout',
    echo(),
    smallMapping({ inputs: { image: cameraInput({ layout: 'NHWC' }) } }),
    'inputs.image',
    /\[1, 2, 4, 3\]/,
    /\[1, 3, 2, 4\]/,
  ),
  input(
    'a picture of another size',
    echo(),
    smallMapping({ inputs: { image: cameraInput({ height: 4 }) } }),
    'inputs.image',
    /\[1, 3, 4, 4\]/,
    /\[1, 3, 2, 4\]/,
  ),
  input(
    'a picture without a batch',
    echo(),
    smallMapping({ inputs: { image: cameraInput({ layout: 'CHW' }) } }),
    'inputs.image',
    /\[3, 2, 4\]/,
    /\[1, 3, 2, 4\]/,
  ),
  input('other joints', echo(joints), withInputs({ joints: { from: 'state', joints: [0] } }), 'inputs.joints', /\[1, 1\]/, /\[1, 2\]/),
  input(
    'words of another length',
    echo({ name: 'text', type: 'int64', shape: [1, 8] }),
    withInputs({ text: { from: 'instruction', words: { red: 1 }, length: 6 } }),
    'inputs.text',
    /\[1, 6\]/,
    /\[1, 8\]/,
  ),
  input(
    'words of another type',
    echo({ name: 'text', type: 'uint8', shape: [1, 8] }),
    withInputs({ text: { from: 'instruction', words: { red: 1 }, length: 8 } }),
    'inputs.text',
    /int64 or int32/,
    /uint8/,
  ),
  input(
    'a constant of another shape',
    echo(joints),
    withInputs({ joints: { from: 'constant', shape: [2], value: 0 } }),
    'inputs.joints',
    /\[2\]/,
    /\[1, 2\]/,
  ),
  result(
    'an output that is not there',
    echo(),
    output({ name: 'action' }),
    'output.name',
    /an output of the model: actions/,
    /did you mean actions\?/,
  ),
  result('an output of another type', halfModel, smallMapping(), 'output.name', /float32 or float64/, /float16/),
  result('an output of another layout', echo(), output({ layout: 'HD' }), 'output.layout', /H x D/, /\[1, 12, 2\]/),
  result('too few actions', echo(), smallMapping({ frame_chunk_size: 4 }), 'frame_chunk_size', /at most 12 actions/, /4 x 4 = 16/),
  result('channels that are not there', echo(), output({ channels: [0, 2] }), 'output.channels[1]', /below 2/, /2/),
  result('means for other channels', echo(), output({ mean: [0, 0, 0], std: [1, 1, 1] }), 'output.mean', /2 numbers/, /3/),
];

for (const { name, model, mapping, ...wanted } of mismatches) {
  t.test(`job and model differ: ${name}`, { skip }, async (t) => {
    const dir = folder(t, model, mapping);
    t.match(await errorOf(openOnnx(options(dir))), { ...wanted, file: join(dir, 'model.onnx'), message: /Correct job\.json/ });
  });
}

t.test('axes that are not fixed are judged by a run', { skip }, async (t) => {
  const free = imageSpec({ shape: ['batch', 3, 'height', 'width'] });
  const dir = folder(t, echoModel([free], 'image', [1, 12, 2]), smallMapping());
  const policy = await openOnnx(options(dir));
  t.same(policy.info.actionShape, [2, 2, 4]);
  t.same(policy.info.modes, ['sync', 'ensemble'], 'it does not look two chunks ahead');
  await policy.close();
  writeFileSync(join(dir, 'job.json'), JSON.stringify(smallMapping({ inputs: { image: cameraInput({ height: 4 }) } })));
  t.match(await errorOf(openOnnx(options(dir))), { code: 'ONNX_RUN', file: join(dir, 'model.onnx') }, 'the model cannot take that');
});

t.test('options that are for the engine', async (t) => {
  const dir = folder(t, imageEcho(), smallMapping());
  for (const [more, code, field] of [
    [{ precision: 'int8' }, 'PRECISION_UNSUPPORTED', 'precision'],
    [{ kvCache: 'int8' }, 'ARGUMENT_INVALID', 'kvCache'],
    [{ plan: 'a.plan' }, 'ARGUMENT_INVALID', 'plan'],
    [{ device: 'cuda' }, 'DEVICE_UNAVAILABLE', 'device'],
    [{ threads: 0 }, 'ARGUMENT_INVALID', 'threads'],
    [{ checkpoint: '' }, 'ARGUMENT_INVALID', 'checkpoint'],
  ] as const) {
    t.match(await errorOf(loadPolicy(options(dir, more))), { code, field }, field);
    t.match(await errorOf(loadPolicy(options(dir, { ...more, isolate: true }))), { code, field }, `${field}, before a process is started`);
  }
});

t.test('the engine says whose folder it is; a backend that is none', async (t) => {
  const dir = folder(t, imageEcho(), smallMapping());
  const { backend: _, job: __, ...rest } = options(dir);
  const { SIM_JOB: job } = await import('../../../src/sim/job.js');
  t.match(await errorOf(loadPolicy({ ...rest, job })), { code: 'CHECKPOINT_MISSING_FILE', message: /an exported policy: use the backend 'onnx'/ });
  t.match(await errorOf(loadPolicy({ ...rest, job, backend: 'tvm' as 'onnx' })), { code: 'ARGUMENT_INVALID', field: 'backend' });
});

t.test('what makes a policy another one', { skip }, async (t) => {
  const hashOf = async (model: Uint8Array, mapping: Json): Promise<string> => {
    const policy = await openOnnx(options(policyFolder(model, mapping, t.testdir())));
    await policy.close();
    return policy.info.checkpointHash;
  };
  const first = await hashOf(imageEcho(), smallMapping());
  t.equal(await hashOf(imageEcho(), smallMapping()), first);
  t.not(await hashOf(imageEcho(), output({ channels: [1, 0] })), first, 'another mapping');
  t.not(await hashOf(echoModel([imageSpec()], 'image', [1, 8, 3]), smallMapping()), first, 'another model');
});
