/**
 * The released checkpoint layout as data: every tensor's name and shape that a component's config.json implies, with the statistics that keep an
 * untrained network's activations of order one. Owned by the checkpoint writer; it never reads or writes a file.
 */
import type { StoredDtype } from './dtypes.js';
import type { TensorPlan } from './writer.js';

export interface TransformerConfig {
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
  /** 'mot': actions have blocks of their own, of the two sizes below (docs/MOT.md). Default: 'shared'. */
  readonly architecture?: 'shared' | 'mot';
  readonly action_inner_dim?: number;
  readonly action_ffn_dim?: number;
}

export interface VaeConfig {
  readonly base_dim: number;
  readonly decoder_base_dim: number;
  readonly z_dim: number;
  readonly dim_mult: readonly number[];
  readonly num_res_blocks: number;
  readonly temperal_downsample: readonly boolean[];
  readonly in_channels: number;
  readonly out_channels: number;
  readonly patch_size: number;
  readonly latents_mean: readonly number[];
  readonly latents_std: readonly number[];
}

export interface TextEncoderConfig {
  readonly vocab_size: number;
  readonly d_model: number;
  readonly d_kv: number;
  readonly d_ff: number;
  readonly num_layers: number;
  readonly num_heads: number;
  readonly relative_attention_num_buckets: number;
}

/** A tensor with the distribution of its untrained values. */
export interface InitialTensor extends TensorPlan {
  readonly mean: number;
  readonly std: number;
}

const BIAS_STD = 0.02;
const NORM_STD = 0.05;

/** Collects one component's tensors; all have one dtype. */
class Layout {
  readonly tensors: InitialTensor[] = [];
  readonly #dtype: StoredDtype;

  constructor(dtype: StoredDtype) {
    this.#dtype = dtype;
  }

  add(name: string, shape: readonly number[], std: number, mean = 0): void {
    this.tensors.push({ name, dtype: this.#dtype, shape, mean, std });
  }

  /** A linear layer [outputs, inputs] with bias. */
  linear(name: string, outputs: number, inputs: number): void {
    this.add(`${name}.weight`, [outputs, inputs], 1 / Math.sqrt(inputs));
    this.add(`${name}.bias`, [outputs], BIAS_STD);
  }

  norm(name: string, shape: readonly number[]): void {
    this.add(name, shape, NORM_STD, 1);
  }

  /** A convolution [outputs, inputs, ...kernel] with bias. `gain` makes up for an activation in front that shrinks its input. */
  convolution(name: string, outputs: number, inputs: number, kernel: readonly number[], gain = 1): void {
    const fan = kernel.reduce((product, size) => product * size, inputs);
    this.add(`${name}.weight`, [outputs, inputs, ...kernel], gain / Math.sqrt(fan));
    this.add(`${name}.bias`, [outputs], BIAS_STD);
  }
}

/** The transformer's tensors. `vestigial` adds the two of the unused convolutional patch embedding that released files hold. */
export function transformerTensors(config: TransformerConfig, dtype: StoredDtype, vestigial = false): InitialTensor[] {
  const layout = new Layout(dtype);
  const width = config.num_attention_heads * config.attention_head_dim;
  const mot = config.architecture === 'mot';
  const actionWidth = mot ? (config.action_inner_dim ?? width) : width;
  const patch = config.patch_size.reduce((product, size) => product * size, 1);
  if (vestigial) layout.convolution('patch_embedding', width, config.in_channels, config.patch_size);
  layout.linear('patch_embedding_mlp', width, config.in_channels * patch);
  layout.linear('action_embedder', actionWidth, config.action_dim);
  conditionEmbedder(layout, 'condition_embedder', width, config);
  conditionEmbedder(layout, 'condition_embedder_action', actionWidth, config);
  for (let block = 0; block < config.num_layers; block++) transformerBlock(layout, `blocks.${block}`, config, width, config.ffn_dim);
  layout.linear('proj_out', config.out_channels * patch, width);
  layout.linear('action_proj_out', config.action_dim, actionWidth);
  layout.add('scale_shift_table', [1, 2, width], 1 / Math.sqrt(width));
  if (!mot) return layout.tensors;
  const ffn = config.action_ffn_dim ?? config.ffn_dim;
  for (let block = 0; block < config.num_layers; block++) transformerBlock(layout, `action_blocks.${block}`, config, actionWidth, ffn);
  layout.add('action_scale_shift_table', [1, 2, actionWidth], 1 / Math.sqrt(actionWidth));
  return layout.tensors;
}

function conditionEmbedder(layout: Layout, name: string, width: number, config: TransformerConfig): void {
  layout.linear(`${name}.time_embedder.linear_1`, width, config.freq_dim);
  layout.linear(`${name}.time_embedder.linear_2`, width, width);
  layout.linear(`${name}.time_proj`, 6 * width, width);
  layout.linear(`${name}.text_embedder.linear_1`, width, config.text_dim);
  layout.linear(`${name}.text_embedder.linear_2`, width, width);
}

/** Attention always has the video width, whatever the width of the block's tokens: both kinds of tokens meet in it. Text has the video width too. */
function transformerBlock(layout: Layout, name: string, config: TransformerConfig, width: number, ffn: number): void {
  const inner = config.num_attention_heads * config.attention_head_dim;
  for (const [attention, keyWidth] of [
    ['attn1', width],
    ['attn2', inner],
  ] as const) {
    layout.linear(`${name}.${attention}.to_q`, inner, width);
    for (const matrix of ['to_k', 'to_v']) layout.linear(`${name}.${attention}.${matrix}`, inner, keyWidth);
    layout.linear(`${name}.${attention}.to_out.0`, width, inner);
    for (const norm of ['norm_q', 'norm_k']) layout.norm(`${name}.${attention}.${norm}.weight`, [inner]);
  }
  if (config.cross_attn_norm) {
    layout.norm(`${name}.norm2.weight`, [width]);
    layout.add(`${name}.norm2.bias`, [width], BIAS_STD);
  }
  layout.linear(`${name}.ffn.net.0.proj`, ffn, width);
  layout.linear(`${name}.ffn.net.2`, width, ffn);
  layout.add(`${name}.scale_shift_table`, [1, 6, width], 1 / Math.sqrt(width));
}

/** A unit normal behind SiLU has a root mean square of 0.6; convolutions that follow one make up for it. */
const AFTER_SILU = 1.6;

/** The tensors of the residual AutoencoderKLWan. */
export function vaeTensors(config: VaeConfig, dtype: StoredDtype): InitialTensor[] {
  const layout = new Layout(dtype);
  encoder(layout, config);
  layout.convolution('quant_conv', 2 * config.z_dim, 2 * config.z_dim, [1, 1, 1]);
  layout.convolution('post_quant_conv', config.z_dim, config.z_dim, [1, 1, 1]);
  decoder(layout, config);
  return layout.tensors;
}

function encoder(layout: Layout, config: VaeConfig): void {
  const widths = [1, ...config.dim_mult].map((factor) => factor * config.base_dim);
  const stages = config.dim_mult.length;
  layout.convolution('encoder.conv_in', widths[0] ?? 0, config.in_channels, [3, 3, 3]);
  for (let stage = 0; stage < stages; stage++) {
    const name = `encoder.down_blocks.${stage}`;
    const outputs = widths[stage + 1] ?? 0;
    for (let block = 0; block < config.num_res_blocks; block++) {
      residual(layout, `${name}.resnets.${block}`, outputs, block === 0 ? (widths[stage] ?? 0) : outputs);
    }
    if (stage === stages - 1) continue;
    layout.convolution(`${name}.downsampler.resample.1`, outputs, outputs, [3, 3]);
    if (config.temperal_downsample[stage] === true) layout.convolution(`${name}.downsampler.time_conv`, outputs, outputs, [3, 1, 1]);
  }
  const deepest = widths[stages] ?? 0;
  middle(layout, 'encoder.mid_block', deepest);
  layout.norm('encoder.norm_out.gamma', [deepest, 1, 1, 1]);
  layout.convolution('encoder.conv_out', 2 * config.z_dim, deepest, [3, 3, 3], AFTER_SILU);
}

function decoder(layout: Layout, config: VaeConfig): void {
  const upward = [...config.dim_mult].reverse();
  const widths = [upward[0] ?? 1, ...upward].map((factor) => factor * config.decoder_base_dim);
  const stages = upward.length;
  const upsampleTime = [...config.temperal_downsample].reverse();
  layout.convolution('decoder.conv_in', widths[0] ?? 0, config.z_dim, [3, 3, 3]);
  middle(layout, 'decoder.mid_block', widths[0] ?? 0);
  for (let stage = 0; stage < stages; stage++) {
    const name = `decoder.up_blocks.${stage}`;
    const outputs = widths[stage + 1] ?? 0;
    for (let block = 0; block <= config.num_res_blocks; block++) {
      residual(layout, `${name}.resnets.${block}`, outputs, block === 0 ? (widths[stage] ?? 0) : outputs);
    }
    if (stage === stages - 1) continue;
    layout.convolution(`${name}.upsampler.resample.1`, outputs, outputs, [3, 3]);
    if (upsampleTime[stage] === true) layout.convolution(`${name}.upsampler.time_conv`, 2 * outputs, outputs, [3, 1, 1]);
  }
  const last = widths[stages] ?? 0;
  layout.norm('decoder.norm_out.gamma', [last, 1, 1, 1]);
  layout.convolution('decoder.conv_out', config.out_channels, last, [3, 3, 3], AFTER_SILU / 2);
}

function residual(layout: Layout, name: string, outputs: number, inputs: number): void {
  layout.norm(`${name}.norm1.gamma`, [inputs, 1, 1, 1]);
  layout.convolution(`${name}.conv1`, outputs, inputs, [3, 3, 3], AFTER_SILU);
  layout.norm(`${name}.norm2.gamma`, [outputs, 1, 1, 1]);
  layout.convolution(`${name}.conv2`, outputs, outputs, [3, 3, 3], AFTER_SILU / 2);
  if (inputs !== outputs) layout.convolution(`${name}.conv_shortcut`, outputs, inputs, [1, 1, 1]);
}

function middle(layout: Layout, name: string, width: number): void {
  layout.norm(`${name}.attentions.0.norm.gamma`, [width, 1, 1]);
  layout.convolution(`${name}.attentions.0.to_qkv`, 3 * width, width, [1, 1]);
  layout.convolution(`${name}.attentions.0.proj`, width, width, [1, 1]);
  for (const index of [0, 1]) residual(layout, `${name}.resnets.${index}`, width, width);
}

/** The UMT5 encoder's tensors. Attention there is not divided by sqrt(d_kv), so its query weights are that much smaller. */
export function textEncoderTensors(config: TextEncoderConfig, dtype: StoredDtype): InitialTensor[] {
  const layout = new Layout(dtype);
  const { d_model: width, d_ff: hidden, d_kv: headDim, num_heads: heads } = config;
  const inner = heads * headDim;
  layout.add('shared.weight', [config.vocab_size, width], 1);
  for (let block = 0; block < config.num_layers; block++) {
    const attention = `encoder.block.${block}.layer.0`;
    layout.add(`${attention}.SelfAttention.q.weight`, [inner, width], 1 / Math.sqrt(width * headDim));
    for (const matrix of ['k', 'v']) layout.add(`${attention}.SelfAttention.${matrix}.weight`, [inner, width], 1 / Math.sqrt(width));
    layout.add(`${attention}.SelfAttention.o.weight`, [width, inner], 1 / Math.sqrt(inner));
    layout.add(`${attention}.SelfAttention.relative_attention_bias.weight`, [config.relative_attention_num_buckets, heads], 0.5);
    layout.norm(`${attention}.layer_norm.weight`, [width]);
    const feedForward = `encoder.block.${block}.layer.1`;
    for (const matrix of ['wi_0', 'wi_1']) layout.add(`${feedForward}.DenseReluDense.${matrix}.weight`, [hidden, width], 1 / Math.sqrt(width));
    layout.add(`${feedForward}.DenseReluDense.wo.weight`, [width, hidden], 1 / Math.sqrt(hidden));
    layout.norm(`${feedForward}.layer_norm.weight`, [width]);
  }
  layout.norm('encoder.final_layer_norm.weight', [width]);
  return layout.tensors;
}
