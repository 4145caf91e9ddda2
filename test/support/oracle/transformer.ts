/**
 * The oracle's transformer: one forward pass over the cache, written from docs/MODEL.md sections 3 and 8 in float64. Both forms: shared blocks, and
 * the mixture of transformers, where action tokens have blocks of their own width and meet the video tokens in self-attention alone. Used by tests
 * only.
 */
import type { Entry, OracleCache } from './kv-cache.js';
import { attention, gelu, layerNorm, linear, type Position, type Rows, rmsNorm, rope, silu, timestepFeatures } from './math.js';
import type { AttentionWeights, BlockWeights, ModelWeights, StreamWeights } from './weights.js';

export type Modality = 'video' | 'action';

/** Tokens of one pass; the same input serves every guidance row. */
export interface PassInput {
  readonly modality: Modality;
  readonly tokens: Rows;
  readonly positions: readonly Position[];
  /** Timestep of each token. */
  readonly timesteps: readonly number[];
}

/** Keys and values of all text rows of one prompt: [modality][layer]. */
export type Text = Readonly<Record<Modality, readonly { readonly k: Rows; readonly v: Rows }[]>>;

interface Modulation {
  /** [width] */
  readonly temb: Float64Array;
  /** [6 * width] */
  readonly projection: Float64Array;
}

export class OracleTransformer {
  readonly weights: ModelWeights;
  readonly #heads: number;
  readonly #headDim: number;
  readonly #eps: number;

  constructor(weights: ModelWeights) {
    this.weights = weights;
    this.#heads = weights.config.num_attention_heads;
    this.#headDim = weights.config.attention_head_dim;
    this.#eps = Math.fround(weights.config.eps);
  }

  /** Text keys and values. rows: every row of the text window, padding (zeros) included. */
  text(rows: Rows): Text {
    const { text1, text2, video, action } = this.weights;
    const embedded = linear(
      text2,
      linear(text1, rows).map((row) => row.map(gelu)),
    );
    const of = (stream: StreamWeights) =>
      stream.blocks.map(({ cross }) => ({
        k: linear(cross.k, embedded).map((row) => rmsNorm(row, cross.normK, this.#eps)),
        v: linear(cross.v, embedded),
      }));
    return { video: of(video), action: of(action) };
  }

  /**
   * One pass of one guidance row: reads the cache's valid entries, fills in the keys and values of `written` (the pass's own entries, already among
   * the valid ones), returns the head's output per token.
   */
  forward(input: PassInput, row: number, text: Text, cache: OracleCache, written: readonly Entry[]): Float64Array[] {
    const stream = this.weights[input.modality];
    const conditions = this.#conditions(stream, input.timesteps);
    let hidden = linear(stream.embed, input.tokens);
    stream.blocks.forEach((block, layer) => {
      const modulation = conditions.map(({ projection }) => split(add(block.table, projection), 6));
      const part = (index: number): Float64Array[] => modulation.map((parts) => parts[index]!);
      const normed = this.#modulated(hidden, part(0), part(1));
      hidden = gated(hidden, this.#selfAttention(block.self, normed, input.positions, layer, row, cache, written), part(2));
      hidden = this.#crossAttention(block, hidden, text[input.modality][layer]!);
      const up = linear(block.up, this.#modulated(hidden, part(3), part(4))).map((values) => values.map(gelu));
      hidden = gated(hidden, linear(block.down, up), part(5));
    });
    const last = conditions.map(({ temb }) => split(stream.table, 2).map((part) => add(part, temb)));
    const shifts = last.map(([shift]) => shift!);
    const scales = last.map(([, scale]) => scale!);
    return linear(stream.head, this.#modulated(hidden, shifts, scales));
  }

  /** Conditioning of each token; equal timesteps are computed once. */
  #conditions(stream: StreamWeights, timesteps: readonly number[]): Modulation[] {
    const known = new Map<number, Modulation>();
    return timesteps.map((timestep) => {
      const found = known.get(timestep);
      if (found !== undefined) return found;
      const features = timestepFeatures(timestep, this.weights.config.freq_dim);
      const middle = linear(stream.time1, [features]).map((row) => row.map(silu));
      const [temb] = linear(stream.time2, middle);
      const [projection] = linear(stream.timeProjection, [temb!.map(silu)]);
      const modulation = { temb: temb!, projection: projection! };
      known.set(timestep, modulation);
      return modulation;
    });
  }

  /** LayerNorm * (1 + scale) + shift, token by token. */
  #modulated(rows: Rows, shifts: Rows, scales: Rows): Float64Array[] {
    return rows.map((row, token) => layerNorm(row, this.#eps).map((value, i) => value * (1 + scales[token]![i]!) + shifts[token]![i]!));
  }

  #selfAttention(
    weights: AttentionWeights,
    rows: Rows,
    positions: readonly Position[],
    layer: number,
    row: number,
    cache: OracleCache,
    written: readonly Entry[],
  ): Float64Array[] {
    const turned = (values: Rows, norm: Float64Array) =>
      values.map((value, token) => rope(rmsNorm(value, norm, this.#eps), positions[token]!, this.#headDim));
    const q = turned(linear(weights.q, rows), weights.normQ);
    const k = turned(linear(weights.k, rows), weights.normK);
    const v = linear(weights.v, rows);
    written.forEach((entry, token) => {
      entry.k[row]![layer] = k[token]!;
      entry.v[row]![layer] = v[token]!;
    });
    const seen = cache.valid;
    const keys = seen.map((entry) => entry.k[row]![layer]!);
    const values = seen.map((entry) => entry.v[row]![layer]!);
    return linear(weights.out, attention(q, keys, values, this.#heads, this.#headDim));
  }

  /** The residual is plain. Without cross_attn_norm there is no norm in front. */
  #crossAttention({ cross, norm2 }: BlockWeights, hidden: Rows, text: { readonly k: Rows; readonly v: Rows }): Float64Array[] {
    const affine = (row: Float64Array) =>
      norm2 === undefined ? row : layerNorm(row, this.#eps).map((value, i) => value * norm2.weight[i]! + norm2.bias[i]!);
    const q = linear(cross.q, hidden.map(affine)).map((row) => rmsNorm(row, cross.normQ, this.#eps));
    const attended = linear(cross.out, attention(q, text.k, text.v, this.#heads, this.#headDim));
    return hidden.map((row, token) => add(row, attended[token]!));
  }
}

function add(a: Float64Array, b: Float64Array): Float64Array {
  if (a.length !== b.length) throw new Error(`oracle: ${a.length} values and ${b.length} are added`);
  return a.map((value, i) => value + b[i]!);
}

/** Equal consecutive parts of a vector. */
function split(values: Float64Array, count: number): Float64Array[] {
  const size = values.length / count;
  return Array.from({ length: count }, (_, part) => values.subarray(part * size, (part + 1) * size));
}

function gated(rows: Rows, updates: Rows, gates: Rows): Float64Array[] {
  return rows.map((row, token) => row.map((value, i) => value + updates[token]![i]! * gates[token]![i]!));
}
