/**
 * Arithmetic of the oracle, in float64 and in the plainest form that works: a list of tokens is an array of rows, a linear layer is a dot product per
 * output. Owned by the oracle of the tests; it shares nothing with the engine that it checks, and never tries to be fast.
 */

/** Tokens: one Float64Array of features each. */
export type Rows = readonly Float64Array[];

/** A linear layer: weight [outputs, inputs] row by row, bias [outputs]. */
export interface Linear {
  readonly outputs: number;
  readonly inputs: number;
  readonly weight: Float64Array;
  readonly bias: Float64Array;
}

/** Over elements `begin` .. `end` - 1. */
export function dot(a: Float64Array, b: Float64Array, begin = 0, end = a.length): number {
  let sum = 0;
  for (let i = begin; i < end; i++) sum += a[i]! * b[i]!;
  return sum;
}

export function linear(layer: Linear, rows: Rows): Float64Array[] {
  return rows.map((row) => {
    if (row.length !== layer.inputs) throw new Error(`a linear layer of ${layer.inputs} inputs got ${row.length}`);
    const out = new Float64Array(layer.outputs);
    for (let o = 0; o < layer.outputs; o++) {
      let sum = layer.bias[o]!;
      for (let i = 0, at = o * layer.inputs; i < layer.inputs; i++, at++) sum += layer.weight[at]! * row[i]!;
      out[o] = sum;
    }
    return out;
  });
}

/** (x - mean) / sqrt(variance + eps), no affine. */
export function layerNorm(row: Float64Array, eps: number): Float64Array {
  const mean = row.reduce((sum, value) => sum + value, 0) / row.length;
  const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / row.length;
  return row.map((value) => (value - mean) / Math.sqrt(variance + eps));
}

/** x / sqrt(mean(x^2) + eps) * weight, over the whole row. */
export function rmsNorm(row: Float64Array, weight: Float64Array, eps: number): Float64Array {
  const scale = 1 / Math.sqrt(dot(row, row) / row.length + eps);
  return row.map((value, i) => value * scale * weight[i]!);
}

/** GELU, tanh form. */
export const gelu = (x: number): number => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

export const silu = (x: number): number => x / (1 + Math.exp(-x));

/** softmax(q k / sqrt(head_dim)) v, head by head. q: queries, k and v: what they attend, all rows [heads * headDim]. */
export function attention(q: Rows, k: Rows, v: Rows, heads: number, headDim: number): Float64Array[] {
  return q.map((query) => {
    const out = new Float64Array(heads * headDim);
    for (let first = 0; first < out.length; first += headDim) {
      const end = first + headDim;
      const scores = k.map((key) => dot(query, key, first, end) / Math.sqrt(headDim));
      const highest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
      const weights = scores.map((score) => Math.exp(score - highest));
      const total = weights.reduce((a, b) => a + b, 0);
      for (let token = 0; token < v.length; token++) {
        const weight = weights[token]! / total;
        const value = v[token]!;
        for (let i = first; i < end; i++) out[i]! += weight * value[i]!;
      }
    }
    return out;
  });
}

/** A token's place: absolute frame (fractional for actions), patch row, patch column. */
export type Position = readonly [frame: number, height: number, width: number];

/**
 * Rotary embedding of a row [heads * headDim]. The head splits into a frame part (what height and width leave), a height and a width part (a third
 * each, rounded down); each part turns its neighbouring pairs by position * 10000^(-2 i / part). Base frequencies and angles are float32, as
 * deployed.
 */
export function rope(row: Float64Array, position: Position, headDim: number): Float64Array {
  const third = Math.floor(headDim / 3);
  const parts = [headDim - 2 * third, third, third];
  const out = new Float64Array(row.length);
  for (let head = 0; head < row.length; head += headDim) {
    let at = head;
    parts.forEach((part, axis) => {
      for (let i = 0; i < part; i += 2, at += 2) {
        const base = Math.fround(1 / 10000 ** (i / part));
        const angle = Math.fround(Math.fround(position[axis]!) * base);
        out[at] = row[at]! * Math.cos(angle) - row[at + 1]! * Math.sin(angle);
        out[at + 1] = row[at]! * Math.sin(angle) + row[at + 1]! * Math.cos(angle);
      }
    });
  }
  return out;
}

/** Sinusoidal features of a timestep, [dim]: cosines, then sines; frequencies 10000^(-i / half), frequencies and angles in float32 as deployed. */
export function timestepFeatures(timestep: number, dim: number): Float64Array {
  const half = dim / 2;
  const out = new Float64Array(dim);
  for (let i = 0; i < half; i++) {
    const exponent = Math.fround(Math.fround(Math.fround(-Math.log(10000)) * i) / half);
    const frequency = Math.fround(Math.exp(exponent));
    const angle = Math.fround(timestep * frequency);
    out[i] = Math.cos(angle);
    out[half + i] = Math.sin(angle);
  }
  return out;
}
