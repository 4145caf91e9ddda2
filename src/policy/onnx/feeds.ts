/**
 * Fills an exported policy's inputs from an observation: fitted pictures, the measured joints, the instruction's words, constants. Pure; match.ts has
 * checked that types and axes are the model's.
 */
import { PremotorError } from '../../errors.js';
import { instructionTokens } from './instruction.js';
import type { ConstantInput, StateInput } from './job.js';
import type { Feed } from './match.js';
import { type Picture, pictureValues } from './picture.js';
import type { Elements, ElementType, Value } from './runtime.js';

/** What a prediction is made from. */
export interface Situation {
  /** By input: the newest picture in the input's size. */
  readonly pictures: ReadonlyMap<string, Picture>;
  /** Measured joint positions, [joints]. */
  readonly pose: Float64Array | undefined;
  /** By input: the instruction's numbers. */
  readonly tokens: ReadonlyMap<string, readonly number[]>;
}

/** The instruction for every input that reads it. Errors: ONNX_INSTRUCTION. */
export function tokensFor(prompt: string, feeds: readonly Feed[]): Map<string, readonly number[]> {
  return new Map(feeds.flatMap(({ name, input }) => (input.from === 'instruction' ? [[name, instructionTokens(prompt, input)] as const] : [])));
}

/** Errors: ONNX_STATE. */
export function fill(feeds: readonly Feed[], { pictures, pose, tokens }: Situation): Map<string, Value> {
  const valuesOf = ({ name, input, type }: Feed): Elements => {
    if (input.from === 'camera') return pictureValues(pictures.get(name) as Picture, input);
    if (input.from === 'state') return elements(type, stateValues(input, pose, name));
    return elements(type, input.from === 'instruction' ? (tokens.get(name) ?? []) : constantValues(input));
  };
  return new Map(feeds.map((feed): [string, Value] => [feed.name, { type: feed.type, shape: feed.shape, data: valuesOf(feed) }]));
}

function stateValues({ joints, mean, std }: StateInput, pose: Float64Array | undefined, name: string): number[] {
  const wanted = joints ?? Array.from(pose ?? [], (_, joint) => joint);
  return wanted.map((joint, index) => {
    const angle = pose?.[joint];
    if (angle === undefined) throw noState(name, `joint ${joint}`, pose ? `${pose.length} joints` : 'none');
    return (angle - (mean?.[index] ?? 0)) / (std?.[index] ?? 1);
  });
}

export function noState(field: string, expected: string, found: string): PremotorError {
  const message = `The exported policy reads the robot's joints: expected ${expected}, found ${found}. Pass their measured positions as state.`;
  return new PremotorError('ONNX_STATE', message, { field, expected, found });
}

function constantValues({ shape, value }: ConstantInput): readonly number[] {
  if (typeof value !== 'number') return value;
  return new Array<number>(shape.reduce((product, size) => product * size, 1)).fill(value);
}

function elements(type: ElementType, values: readonly number[]): Elements {
  switch (type) {
    case 'float32':
      return Float32Array.from(values);
    case 'float64':
      return Float64Array.from(values);
    case 'int32':
      return Int32Array.from(values);
    case 'int64':
      return BigInt64Array.from(values, (value) => BigInt(Math.trunc(value)));
    default:
      return Uint8Array.from(values);
  }
}
