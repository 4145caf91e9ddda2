/**
 * The sizes an untrained checkpoint comes in, and how overrides change them. Owned by the checkpoint writer; pure data and checks.
 */
import { PremotorError } from '../errors.js';
import type { TextEncoderConfig, TransformerConfig, VaeConfig } from './layout.js';

export type CheckpointSize = 'tiny' | 'small' | 'released';

export interface CheckpointConfigs {
  readonly transformer: TransformerConfig;
  readonly vae: VaeConfig;
  readonly textEncoder: TextEncoderConfig;
}

export interface ConfigOverrides {
  readonly transformer?: Partial<TransformerConfig>;
  readonly vae?: Partial<VaeConfig>;
  readonly textEncoder?: Partial<TextEncoderConfig>;
}

/** Normalisation of the released autoencoder's 48 latent channels. */
const latentsMean = [
  -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891, 0.157, -0.0098, 0.0375, -0.1825, -0.2246,
  -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.123, -0.0313, -0.1649,
  0.0117, 0.0723, -0.2839, -0.2083, -0.052, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
];
const latentsStd = [
  0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.499, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523,
  0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
  0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.06, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
];

const transformerBase = { patch_size: [1, 2, 2], in_channels: 48, out_channels: 48, action_dim: 30, cross_attn_norm: true, eps: 1e-6 } as const;
const vaeBase = {
  z_dim: 48,
  dim_mult: [1, 2, 4, 4],
  num_res_blocks: 2,
  temperal_downsample: [false, true, true],
  in_channels: 12,
  out_channels: 12,
  patch_size: 2,
  latents_mean: latentsMean,
  latents_std: latentsStd,
} as const;

type Transformer = Pick<TransformerConfig, 'num_attention_heads' | 'attention_head_dim' | 'text_dim' | 'freq_dim' | 'ffn_dim' | 'num_layers'>;

function sized(heads: number, headDim: number, layers: number, ffn: number, text: number, freq: number): Transformer {
  return { num_attention_heads: heads, attention_head_dim: headDim, num_layers: layers, ffn_dim: ffn, text_dim: text, freq_dim: freq };
}

/** The vocabulary is filled in from the tokenizer. */
function encoderOf(width: number, headDim: number, hidden: number, layers: number, heads: number): TextEncoderConfig {
  const shape = { d_model: width, d_kv: headDim, d_ff: hidden, num_layers: layers, num_heads: heads };
  return { vocab_size: 0, ...shape, relative_attention_num_buckets: 32 };
}

const sizes: Readonly<Record<CheckpointSize, CheckpointConfigs>> = {
  tiny: {
    transformer: { ...transformerBase, ...sized(2, 24, 2, 96, 32, 64) },
    vae: { ...vaeBase, base_dim: 4, decoder_base_dim: 4 },
    textEncoder: encoderOf(32, 8, 64, 2, 4),
  },
  small: {
    transformer: { ...transformerBase, ...sized(4, 48, 4, 576, 64, 256) },
    vae: { ...vaeBase, base_dim: 8, decoder_base_dim: 8 },
    textEncoder: encoderOf(64, 16, 128, 2, 4),
  },
  released: {
    transformer: { ...transformerBase, ...sized(24, 128, 30, 14336, 4096, 256) },
    vae: { ...vaeBase, base_dim: 160, decoder_base_dim: 256 },
    // One narrow layer of the right width, so that the file stays small; `releasedTextEncoder` is the whole.
    textEncoder: encoderOf(4096, 64, 256, 1, 2),
  },
};

/** UMT5-XXL: 11 GB in bf16. */
export const releasedTextEncoder: TextEncoderConfig = { ...encoderOf(4096, 64, 10240, 24, 64), vocab_size: 256384 };

/** The three configs of a size with overrides. Dimensions that must agree follow the one that was given. Errors: CHECKPOINT_CONFIG. */
export function resolveConfigs(size: CheckpointSize, overrides: ConfigOverrides = {}): CheckpointConfigs {
  const base = sizes[size];
  const latents = agree('latent channels', [overrides.vae?.z_dim, overrides.transformer?.in_channels], base.vae.z_dim);
  const text = agree('text width', [overrides.textEncoder?.d_model, overrides.transformer?.text_dim], base.transformer.text_dim);
  const transformer = { ...base.transformer, ...overrides.transformer, in_channels: latents, text_dim: text };
  const vae = { ...base.vae, ...overrides.vae, z_dim: latents };
  const configs = {
    transformer: { ...transformer, out_channels: overrides.transformer?.out_channels ?? latents },
    vae: {
      ...vae,
      latents_mean: overrides.vae?.latents_mean ?? repeated(latentsMean, latents),
      latents_std: overrides.vae?.latents_std ?? repeated(latentsStd, latents),
    },
    textEncoder: { ...base.textEncoder, ...overrides.textEncoder, d_model: text },
  };
  checkTransformer(configs.transformer);
  checkVae(configs.vae);
  return configs;
}

function agree(what: string, given: readonly (number | undefined)[], otherwise: number): number {
  const [first, ...rest] = given.filter((value) => value !== undefined);
  if (first === undefined) return otherwise;
  if (rest.some((value) => value !== first)) throw invalid(`one number of ${what}`, `${[first, ...rest].join(' and ')}`);
  return first;
}

function repeated(values: readonly number[], count: number): number[] {
  return Array.from({ length: count }, (_, index) => values[index % values.length] ?? 0);
}

function checkTransformer(config: TransformerConfig): void {
  const third = Math.floor(config.attention_head_dim / 3);
  if (config.attention_head_dim % 2 !== 0 || third % 2 !== 0 || third === 0) {
    throw invalid('an even attention_head_dim whose third, rounded down, is even too (rotary position pairs)', String(config.attention_head_dim));
  }
  if (config.freq_dim % 2 !== 0) throw invalid('an even freq_dim', String(config.freq_dim));
  const { architecture, action_inner_dim: width, action_ffn_dim: ffn } = config;
  if (architecture === 'mot' && (width === undefined || ffn === undefined)) {
    throw invalid('action_inner_dim and action_ffn_dim beside architecture "mot"', `${width ?? 'none'} and ${ffn ?? 'none'}`);
  }
}

function checkVae(config: VaeConfig): void {
  if (config.latents_mean.length !== config.z_dim || config.latents_std.length !== config.z_dim) {
    throw invalid(`latents_mean and latents_std of length z_dim (${config.z_dim})`, `${config.latents_mean.length} and ${config.latents_std.length}`);
  }
  if (config.temperal_downsample.length !== config.dim_mult.length - 1) {
    throw invalid('one temperal_downsample less than dim_mult', `${config.temperal_downsample.length} of ${config.dim_mult.length}`);
  }
  if (config.in_channels !== 3 * config.patch_size ** 2) throw invalid(`in_channels ${3 * config.patch_size ** 2}`, String(config.in_channels));
}

function invalid(expected: string, found: string): PremotorError {
  return new PremotorError('CHECKPOINT_CONFIG', `The checkpoint cannot be built: expected ${expected}, found ${found}. Correct the overrides.`, {
    expected,
    found,
  });
}
