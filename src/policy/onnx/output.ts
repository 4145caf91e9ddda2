/**
 * From an exported policy's raw output to actions in radians, one row per moment and one column per joint of the robot. Pure; what is no number is
 * refused here, before anything could be told to a motor.
 */
import { PremotorError } from '../../errors.js';
import type { OnnxOutput } from './job.js';

/** Actions [horizon, joints], radians. */
export interface Actions {
  readonly horizon: number;
  readonly joints: number;
  readonly values: Float64Array;
}

/** Axes of an output's shape: how many actions, and channels of each; undefined when the shape is not of the layout. */
export function sizesOf(shape: readonly number[], layout: OnnxOutput['layout']): { horizon: number; channels: number } | undefined {
  const axes = layout.startsWith('1') ? shape.slice(1) : shape;
  if (axes.length !== 2 || (layout.startsWith('1') && shape[0] !== 1)) return undefined;
  const [first = 0, second = 0] = axes;
  return layout.endsWith('HD') ? { horizon: first, channels: second } : { horizon: second, channels: first };
}

/**
 * The mapped joints' actions. `pose` is where the joints are, [joints], for values that are relative. Errors: ONNX_OUTPUT_VALUE.
 */
export function actionsOf(
  raw: ArrayLike<number>,
  { horizon, channels: width }: { readonly horizon: number; readonly channels: number },
  output: OnnxOutput,
  pose: ArrayLike<number> | undefined,
): Actions {
  const { channels, layout, values: meaning } = output;
  const joints = channels.length;
  const values = new Float64Array(horizon * joints);
  for (let action = 0; action < horizon; action++) {
    for (const [joint, channel] of channels.entries()) {
      const value = raw[layout.endsWith('HD') ? action * width + channel : channel * horizon + action] ?? Number.NaN;
      if (!Number.isFinite(value)) throw notANumber(output.name, value, action, channel);
      const angle = physical(value, channel, output);
      const before = meaning === 'absolute' ? 0 : meaning === 'from_state' || action === 0 ? (pose?.[joint] ?? Number.NaN) : 0;
      const sum = meaning === 'from_previous' && action > 0 ? (values[(action - 1) * joints + joint] ?? 0) + angle : before + angle;
      values[action * joints + joint] = sum;
    }
  }
  return { horizon, joints, values };
}

function physical(value: number, channel: number, { mean, std, min, max }: OnnxOutput): number {
  if (mean && std) return value * (std[channel] ?? 1) + (mean[channel] ?? 0);
  if (!min || !max) return value;
  const [low, high] = [min[channel] ?? -1, max[channel] ?? 1];
  return low + ((value + 1) / 2) * (high - low);
}

function notANumber(name: string, value: number, action: number, channel: number): PremotorError {
  const found = `${value} in action ${action}, channel ${channel}`;
  const message = `The exported policy's output ${name} is not a number: expected finite actions, found ${found}. The robot holds; check the model.`;
  return new PremotorError('ONNX_OUTPUT_VALUE', message, { field: name, expected: 'finite actions', found });
}
