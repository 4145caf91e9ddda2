/**
 * Reads a checkpoint's transformer into float64 arrays for the oracle: config.json and every tensor of one or several safetensors files. Each
 * tensor's shape is checked against what the oracle, not the engine, expects of it.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SafetensorsFile } from '../../../src/checkpoint/safetensors.js';
import type { Linear } from './math.js';

/** transformer/config.json, the fields that mean something. */
export interface OracleConfig {
  readonly patch_size: readonly [number, number, number];
  readonly num_attention_heads: number;
  readonly attention_head_dim: number;
  readonly in_channels: number;
  readonly out_channels: number;
  readonly action_dim: number;
  readonly text_dim: number;
  readonly freq_dim: number;
  readonly ffn_dim: number;
  readonly num_layers: number;
  readonly cross_attn_norm: boolean;
  readonly eps: number;
  readonly architecture?: 'shared' | 'mot';
  readonly action_inner_dim?: number;
  readonly action_ffn_dim?: number;
}

export interface AttentionWeights {
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly out: Linear;
  readonly normQ: Float64Array;
  readonly normK: Float64Array;
}

export interface BlockWeights {
  readonly self: AttentionWeights;
  readonly cross: AttentionWeights;
  /** Affine of the norm in front of cross-attention; absent without cross_attn_norm. */
  readonly norm2: { readonly weight: Float64Array; readonly bias: Float64Array } | undefined;
  readonly up: Linear;
  readonly down: Linear;
  /** [6, width]: shift, scale, gate of self-attention, then of the feed-forward part. */
  readonly table: Float64Array;
}

/** Everything that tokens of one modality pass through. */
export interface StreamWeights {
  readonly width: number;
  readonly embed: Linear;
  readonly time1: Linear;
  readonly time2: Linear;
  readonly timeProjection: Linear;
  readonly blocks: readonly BlockWeights[];
  /** [2, width]: shift, scale. */
  readonly table: Float64Array;
  readonly head: Linear;
}

export interface ModelWeights {
  readonly config: OracleConfig;
  readonly text1: Linear;
  readonly text2: Linear;
  readonly video: StreamWeights;
  readonly action: StreamWeights;
}

class Tensors {
  readonly #values = new Map<string, { readonly shape: readonly number[]; readonly data: Float64Array }>();

  constructor(folder: string) {
    for (const name of readdirSync(folder).filter((file) => file.endsWith('.safetensors'))) {
      const file = SafetensorsFile.open(join(folder, name));
      for (const [tensor, { shape }] of file.tensors) this.#values.set(tensor, { shape, data: Float64Array.from(file.float32(tensor)) });
      file.close();
    }
  }

  get(name: string, ...shape: number[]): Float64Array {
    const tensor = this.#values.get(name);
    if (tensor?.shape.join() !== shape.join()) throw new Error(`oracle: ${name}: expected [${shape}], found [${tensor?.shape ?? 'nothing'}]`);
    return tensor.data;
  }

  linear(name: string, outputs: number, inputs: number): Linear {
    return { outputs, inputs, weight: this.get(`${name}.weight`, outputs, inputs), bias: this.get(`${name}.bias`, outputs) };
  }
}

/** Reads `checkpoint`/transformer. */
export function readWeights(checkpoint: string): ModelWeights {
  const folder = join(checkpoint, 'transformer');
  const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as OracleConfig;
  const tensors = new Tensors(folder);
  const inner = config.num_attention_heads * config.attention_head_dim;
  const text1 = tensors.linear('condition_embedder.text_embedder.linear_1', inner, config.text_dim);
  const text2 = tensors.linear('condition_embedder.text_embedder.linear_2', inner, inner);
  const videoBlocks = readBlocks(tensors, config, 'blocks', inner, config.ffn_dim);
  const [, ph, pw] = config.patch_size;
  const video: StreamWeights = {
    ...readTime(tensors, config, 'condition_embedder', inner),
    width: inner,
    embed: tensors.linear('patch_embedding_mlp', inner, config.in_channels * ph * pw),
    blocks: videoBlocks,
    table: tensors.get('scale_shift_table', 1, 2, inner),
    head: tensors.linear('proj_out', config.out_channels * ph * pw, inner),
  };
  // The shared form: actions have an embedder, a time embedder and a head of their own, nothing else. The mixture of transformers: everything.
  const mot = config.architecture === 'mot';
  const width = mot ? config.action_inner_dim! : inner;
  const action: StreamWeights = {
    ...readTime(tensors, config, 'condition_embedder_action', width),
    width,
    embed: tensors.linear('action_embedder', width, config.action_dim),
    blocks: mot ? readBlocks(tensors, config, 'action_blocks', width, config.action_ffn_dim!) : videoBlocks,
    table: mot ? tensors.get('action_scale_shift_table', 1, 2, width) : video.table,
    head: tensors.linear('action_proj_out', config.action_dim, width),
  };
  return { config, text1, text2, video, action };
}

function readTime(tensors: Tensors, config: OracleConfig, name: string, width: number): Pick<StreamWeights, 'time1' | 'time2' | 'timeProjection'> {
  return {
    time1: tensors.linear(`${name}.time_embedder.linear_1`, width, config.freq_dim),
    time2: tensors.linear(`${name}.time_embedder.linear_2`, width, width),
    timeProjection: tensors.linear(`${name}.time_proj`, 6 * width, width),
  };
}

function readBlocks(tensors: Tensors, config: OracleConfig, prefix: string, width: number, ffn: number): BlockWeights[] {
  const inner = config.num_attention_heads * config.attention_head_dim;
  const attention = (name: string, keyWidth: number): AttentionWeights => ({
    q: tensors.linear(`${name}.to_q`, inner, width),
    k: tensors.linear(`${name}.to_k`, inner, keyWidth),
    v: tensors.linear(`${name}.to_v`, inner, keyWidth),
    out: tensors.linear(`${name}.to_out.0`, width, inner),
    normQ: tensors.get(`${name}.norm_q.weight`, inner),
    normK: tensors.get(`${name}.norm_k.weight`, inner),
  });
  return Array.from({ length: config.num_layers }, (_, layer) => {
    const name = `${prefix}.${layer}`;
    const norm2 = () => ({ weight: tensors.get(`${name}.norm2.weight`, width), bias: tensors.get(`${name}.norm2.bias`, width) });
    return {
      self: attention(`${name}.attn1`, width),
      cross: attention(`${name}.attn2`, inner),
      norm2: config.cross_attn_norm ? norm2() : undefined,
      up: tensors.linear(`${name}.ffn.net.0.proj`, ffn, width),
      down: tensors.linear(`${name}.ffn.net.2`, width, ffn),
      table: tensors.get(`${name}.scale_shift_table`, 1, 6, width),
    };
  });
}
