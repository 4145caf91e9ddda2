/**
 * Stretches of actions as the policy lays them out, [channels, n] channel by channel: cut, joined, and from single actions. Pure functions of arrays;
 * they know no time and no limits.
 */

/** Actions from .. to of [channels, count]. */
export function sliceActions(actions: Float32Array, channels: number, from: number, to: number): Float32Array {
  const count = actions.length / channels;
  const part = new Float32Array(channels * (to - from));
  for (let channel = 0; channel < channels; channel++) {
    part.set(actions.subarray(channel * count + from, channel * count + to), channel * (to - from));
  }
  return part;
}

/** Two stretches as one. */
export function joinActions(a: Float32Array, b: Float32Array, channels: number): Float32Array {
  const [one, two] = [a.length / channels, b.length / channels];
  const joined = new Float32Array(a.length + b.length);
  for (let channel = 0; channel < channels; channel++) {
    joined.set(a.subarray(channel * one, (channel + 1) * one), channel * (one + two));
    joined.set(b.subarray(channel * two, (channel + 1) * two), channel * (one + two) + one);
  }
  return joined;
}

/** Single actions, [channels] each, as a stretch. */
export function stackActions(actions: readonly ArrayLike<number>[], channels: number): Float32Array {
  const stacked = new Float32Array(channels * actions.length);
  for (const [index, action] of actions.entries()) {
    for (let channel = 0; channel < channels; channel++) stacked[channel * actions.length + index] = action[channel] ?? Number.NaN;
  }
  return stacked;
}

/** One action of a stretch, [channels]. */
export function actionAt(actions: Float32Array, channels: number, index: number): Float32Array {
  const count = actions.length / channels;
  return Float32Array.from({ length: channels }, (_, channel) => actions[channel * count + index] ?? Number.NaN);
}
