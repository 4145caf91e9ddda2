/**
 * Action chunks as tables: column names by the meaning of the model's channels, CSV and JSON. Owned by infer.ts; values are written as the policy
 * gave them, in physical units.
 */
import type { Chunk } from '../policy/contract.js';

/** The channel count whose layout is known (docs/MODEL.md section 6). */
const KNOWN_CHANNELS = 30;

/**
 * The name of one channel: end-effector position and quaternion (whose component order is the data set's), joints, grippers. Other layouts than
 * that of 30 channels are numbered.
 */
export function channelName(id: number, actionDim: number): string {
  if (actionDim !== KNOWN_CHANNELS) return `channel${id}`;
  if (id >= 28) return id === 28 ? 'left_gripper' : 'right_gripper';
  const side = (id >= 7 && id < 14) || id >= 21 ? 'right' : 'left';
  const index = id % 7;
  if (id >= 14) return `${side}_joint${index}`;
  return index < 3 ? `${side}_${'xyz'[index]}` : `${side}_quat${index - 3}`;
}

export interface ActionRow {
  readonly chunk: number;
  /** Absolute latent frame of the episode. */
  readonly frame: number;
  readonly step: number;
  /** One value per used channel. */
  readonly values: readonly number[];
}

/** Every action of every chunk in the order of execution. */
export function actionRows(chunks: readonly Pick<Chunk, 'actions' | 'shape' | 'frameIndex'>[]): ActionRow[] {
  const rows: ActionRow[] = [];
  for (const [chunk, { actions, shape, frameIndex }] of chunks.entries()) {
    const [used, frames, steps] = shape;
    for (let frame = 0; frame < frames; frame++) {
      for (let step = 0; step < steps; step++) {
        const values = Array.from({ length: used }, (_, channel) => actions[(channel * frames + frame) * steps + step] ?? 0);
        rows.push({ chunk, frame: frameIndex + frame, step, values });
      }
    }
  }
  return rows;
}

/** CSV with a header. Numbers are written so that reading them as float32 gives the same bits. */
export function actionsCsv(columns: readonly string[], rows: readonly ActionRow[]): string {
  const lines = rows.map(({ chunk, frame, step, values }) => [chunk, frame, step, ...values.map(shortest)].join(','));
  return `${['chunk', 'frame', 'step', ...columns].join(',')}\n${lines.join('\n')}\n`;
}

/** The shortest decimal of at most 9 digits that is this float32. */
export function shortest(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  for (let digits = 6; digits < 9; digits++) {
    const text = value.toPrecision(digits);
    if (Math.fround(Number(text)) === Math.fround(value)) return String(Number(text));
  }
  return String(Number(value.toPrecision(9)));
}
