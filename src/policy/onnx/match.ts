/**
 * Compares a mapping with the model that it is for: every input has its source with the right type and axes, and the output is what the job says.
 * All that differs is one error. Pure; it runs nothing.
 */
import { PremotorError } from '../../errors.js';
import { nearestName } from '../../wording.js';
import type { OnnxInput, OnnxJob, OnnxOutput } from './job.js';
import { sizesOf } from './output.js';
import { pictureShape } from './picture.js';
import type { Declared, ElementType } from './runtime.js';

/** An input of the model with its source and the tensor that it takes. */
export interface Feed {
  readonly name: string;
  readonly input: OnnxInput;
  readonly type: ElementType;
  readonly shape: readonly number[];
}

interface Problem {
  readonly field: string;
  readonly expected: string;
  readonly found: string;
}

/** Types that a source can fill. */
const TYPES: Readonly<Record<OnnxInput['from'], readonly ElementType[]>> = {
  camera: ['float32', 'uint8'],
  state: ['float32', 'float64'],
  instruction: ['int64', 'int32', 'float32'],
  constant: ['float32', 'float64', 'uint8', 'int32', 'int64', 'bool'],
};

const shown = (shape: readonly (number | undefined)[]): string => `[${shape.map((size) => size ?? '?').join(', ')}]`;

/** Errors: ONNX_INPUT_MISMATCH. */
export function matchInputs(job: OnnxJob, declared: readonly Declared[], file: string): Feed[] {
  const problems: Problem[] = [];
  const names = declared.map(({ name }) => name);
  for (const name of Object.keys(job.inputs)) {
    if (names.includes(name)) continue;
    const meant = nearestName(name, names);
    const found = `"${name}"${meant === undefined ? '' : `: did you mean ${meant}?`}`;
    problems.push({ field: `inputs.${name}`, expected: `an input of the model: ${names.join(', ')}`, found });
  }
  const feeds: Feed[] = [];
  for (const one of declared) {
    const input = job.inputs[one.name];
    if (input === undefined) {
      problems.push({
        field: `inputs.${one.name}`,
        expected: `a source, because the model has this input (${one.type} ${shown(one.shape)})`,
        found: 'none',
      });
      continue;
    }
    const feed = feedOf(one, input, job.output.channels.length, problems);
    if (feed) feeds.push(feed);
  }
  if (problems.length > 0) throw mismatch('ONNX_INPUT_MISMATCH', problems, file);
  return feeds;
}

function feedOf(declared: Declared, input: OnnxInput, joints: number, problems: Problem[]): Feed | undefined {
  const { name, type } = declared;
  const place = `inputs.${name}`;
  const wanted: readonly string[] = input.from === 'camera' ? [input.dtype === 'u8' ? 'uint8' : 'float32'] : TYPES[input.from];
  if (type === undefined || !wanted.includes(type)) {
    problems.push({ field: place, expected: `an input of type ${wanted.join(' or ')}, which ${input.from} gives`, found: type ?? 'no tensor' });
    return undefined;
  }
  const shape = shapeOf(declared, input, joints);
  const fits = declared.shape.length === shape.length && declared.shape.every((size, axis) => size === undefined || size === shape[axis]);
  if (!fits) {
    problems.push({ field: place, expected: `axes that fit what ${input.from} gives, ${shown(shape)}`, found: shown(declared.shape) });
    return undefined;
  }
  return { name, input, type: type as ElementType, shape };
}

/** What a source gives; a list of values has as many leading axes of 1 as the model wants. */
function shapeOf({ shape: { length: rank } }: Declared, input: OnnxInput, joints: number): readonly number[] {
  if (input.from === 'camera') return pictureShape(input);
  if (input.from === 'constant') return input.shape;
  const count = input.from === 'state' ? (input.joints?.length ?? joints) : input.length;
  return [...new Array<number>(Math.max(0, rank - 1)).fill(1), count];
}

/** Errors: ONNX_OUTPUT_MISMATCH. */
export function matchOutput({ output }: OnnxJob, declared: readonly Declared[], file: string): void {
  const names = declared.map(({ name }) => name);
  const found = declared.find(({ name }) => name === output.name);
  if (!found) {
    const meant = nearestName(output.name, names);
    const what = `"${output.name}"${meant === undefined ? '' : `: did you mean ${meant}?`}`;
    throw mismatch('ONNX_OUTPUT_MISMATCH', [{ field: 'output.name', expected: `an output of the model: ${names.join(', ')}`, found: what }], file);
  }
  if (found.type !== 'float32' && found.type !== 'float64') {
    const problem = { field: 'output.name', expected: 'an output of type float32 or float64', found: found.type ?? 'no tensor' };
    throw mismatch('ONNX_OUTPUT_MISMATCH', [problem], file);
  }
  // Axes that are not fixed are judged by the first run.
  if (found.shape.length > 0 && found.shape.every((size) => size !== undefined)) return;
  const rank = output.layout.length;
  if (found.shape.length !== 0 && found.shape.length !== rank) throw mismatch('ONNX_OUTPUT_MISMATCH', [axesProblem(output, found.shape)], file);
}

const axesProblem = ({ layout }: OnnxOutput, shape: readonly (number | undefined)[]): Problem => ({
  field: 'output.layout',
  expected: `axes of ${[...layout].join(' x ')}`,
  found: shown(shape),
});

/** What a run gave, against the job: axes, channels, and enough actions for a chunk. Errors: ONNX_OUTPUT_MISMATCH. */
export function matchResult(
  { output, frameChunkSize, actionPerFrame }: OnnxJob,
  shape: readonly number[],
  file: string,
): { horizon: number; channels: number } {
  const sizes = sizesOf(shape, output.layout);
  if (!sizes) throw mismatch('ONNX_OUTPUT_MISMATCH', [axesProblem(output, shape)], file);
  const problems: Problem[] = [];
  const chunk = frameChunkSize * actionPerFrame;
  if (sizes.horizon < chunk) {
    const expected = `at most ${sizes.horizon} actions a chunk, as many as the model gives`;
    problems.push({ field: 'frame_chunk_size', expected, found: `${frameChunkSize} x ${actionPerFrame} = ${chunk}` });
  }
  const outside = output.channels.findIndex((channel) => channel >= sizes.channels);
  if (outside >= 0) {
    const expected = `a channel below ${sizes.channels}, as many as the model has`;
    problems.push({ field: `output.channels[${outside}]`, expected, found: `${output.channels[outside]}` });
  }
  for (const name of ['mean', 'std', 'min', 'max'] as const) {
    const found = output[name]?.length;
    if (found === undefined || found === sizes.channels) continue;
    problems.push({ field: `output.${name}`, expected: `${sizes.channels} numbers, one per channel of the model`, found: `${found}` });
  }
  if (problems.length > 0) throw mismatch('ONNX_OUTPUT_MISMATCH', problems, file);
  return sizes;
}

function mismatch(code: string, problems: readonly Problem[], file: string): PremotorError {
  const list = problems.map(({ field, expected, found }) => `${field}: expected ${expected}, found ${found}`);
  const more = list.length > 5 ? `; and ${list.length - 5} more` : '';
  const { field, expected, found } = problems[0] as Problem;
  const message = `The job does not fit the model ${file}. ${list.slice(0, 5).join('; ')}${more}. Correct job.json, or export the model again.`;
  return new PremotorError(code, message, { field, file, expected, found });
}
