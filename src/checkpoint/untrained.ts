/**
 * Writes a complete checkpoint folder in the released layout with seeded random weights: for tests, benches and the demonstration until a trained one
 * exists. What such a model predicts means nothing; the marker file premotor-untrained.json says so to every reader.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { StoredDtype } from './dtypes.js';
import { type InitialTensor, textEncoderTensors, transformerTensors, vaeTensors } from './layout.js';
import { RandomValues } from './random-values.js';
import { type CheckpointConfigs, type CheckpointSize, type ConfigOverrides, resolveConfigs } from './sizes.js';
import { buildVocabulary, writeTokenizer } from './tokenizer.js';
import { planBytes, requireFreeSpace, type TensorPlan, writeComponent } from './writer.js';

export type FloatDtype = 'f32' | 'bf16';
export type Component = 'transformer' | 'vae' | 'text_encoder';

/** The file that marks a folder as untrained. */
export const UNTRAINED_MARKER = 'premotor-untrained.json';

export interface UntrainedOptions {
  /** Seed of every weight, a whole number of 0 .. 2^31 - 1. Default: 0. */
  readonly seed?: number;
  /** Default: 'tiny'. */
  readonly size?: CheckpointSize;
  /** The tokenizer knows the words of these. */
  readonly texts?: readonly string[];
  /** How weights are stored: one for all, or per component. Default: 'f32'. */
  readonly dtype?: FloatDtype | Partial<Record<Component, FloatDtype>>;
  readonly overrides?: ConfigOverrides;
  /** Files the transformer is split into. Default: 1, released size 3. */
  readonly shards?: number;
  /** Also store the unused convolutional patch embedding. Default: true at released size. */
  readonly vestigial?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: WriteProgress) => void;
}

export interface WriteProgress {
  readonly bytes: number;
  readonly totalBytes: number;
}

export interface UntrainedPlan {
  readonly configs: CheckpointConfigs;
  readonly tensors: Readonly<Record<Component, readonly InitialTensor[]>>;
  readonly totalBytes: number;
  readonly vocabulary: ReturnType<typeof buildVocabulary>;
}

const defaultTexts = [
  'Press the red button.',
  'Press the green button.',
  'Touch the blue button with the gripper.',
  'Pick up the red cube and place it in the blue bowl.',
  'Open the drawer, then close it.',
];

const folders: Readonly<Record<Component, string>> = {
  transformer: 'diffusion_pytorch_model',
  vae: 'diffusion_pytorch_model',
  text_encoder: 'model',
};

/** What writeUntrainedCheckpoint would write: configs, tensors and bytes. Errors: CHECKPOINT_CONFIG. */
export function planUntrained(options: UntrainedOptions = {}): UntrainedPlan {
  const size = options.size ?? 'tiny';
  const vocabulary = buildVocabulary(options.texts ?? defaultTexts);
  const resolved = resolveConfigs(size, options.overrides);
  const vocabularySize = options.overrides?.textEncoder?.vocab_size ?? vocabulary.length;
  const configs = { ...resolved, textEncoder: { ...resolved.textEncoder, vocab_size: Math.max(vocabularySize, vocabulary.length) } };
  const dtype = (component: Component): StoredDtype => {
    const chosen = typeof options.dtype === 'object' ? options.dtype[component] : options.dtype;
    return chosen === 'bf16' ? 'BF16' : 'F32';
  };
  const tensors = {
    transformer: transformerTensors(configs.transformer, dtype('transformer'), options.vestigial ?? size === 'released'),
    vae: vaeTensors(configs.vae, dtype('vae')),
    text_encoder: textEncoderTensors(configs.textEncoder, dtype('text_encoder')),
  };
  const totalBytes = Object.values(tensors)
    .flat()
    .reduce((sum, tensor) => sum + planBytes(tensor), 0);
  return { configs, tensors, totalBytes, vocabulary };
}

/** Writes the folder. Errors: CHECKPOINT_CONFIG, DISK_FULL, FILE_WRITE, ABORTED. */
export async function writeUntrainedCheckpoint(dir: string, options: UntrainedOptions = {}): Promise<void> {
  const plan = planUntrained(options);
  const seed = options.seed ?? 0;
  const size = options.size ?? 'tiny';
  await requireFreeSpace(dir, plan.totalBytes);
  const values = new RandomValues(seed);
  const fill = (tensor: TensorPlan, first: number, target: Uint8Array): void => values.fill(tensor as InitialTensor, first, target);
  let bytes = 0;
  const onBytes = (count: number): void => {
    bytes += count;
    options.onProgress?.({ bytes, totalBytes: plan.totalBytes });
  };
  const write = { onBytes, ...(options.signal === undefined ? {} : { signal: options.signal }) };
  for (const component of ['transformer', 'vae', 'text_encoder'] as const) {
    const shards = component === 'transformer' ? (options.shards ?? (size === 'released' ? 3 : 1)) : 1;
    await writeComponent(join(dir, component), folders[component], plan.tensors[component], fill, { ...write, shards });
  }
  await writeConfigs(dir, plan);
  await writeTokenizer(join(dir, 'tokenizer'), plan.vocabulary);
  const note = 'Random weights: what this model predicts means nothing.';
  await writeJson(join(dir, UNTRAINED_MARKER), { note, seed, size, tensors: Object.values(plan.tensors).flat().length, bytes: plan.totalBytes });
}

async function writeConfigs(dir: string, { configs, tensors }: UntrainedPlan): Promise<void> {
  await mkdir(dir, { recursive: true });
  await writeJson(join(dir, 'transformer', 'config.json'), {
    _class_name: 'WanTransformer3DModel',
    ...configs.transformer,
    attn_mode: 'torch',
    pos_embed_seq_len: null,
    rope_max_seq_len: 1024,
  });
  await writeJson(join(dir, 'vae', 'config.json'), {
    _class_name: 'AutoencoderKLWan',
    ...configs.vae,
    attn_scales: [],
    dropout: 0,
    is_residual: true,
    scale_factor_spatial: 2 ** (configs.vae.dim_mult.length - 1) * configs.vae.patch_size,
    scale_factor_temporal: 2 ** configs.vae.temperal_downsample.filter(Boolean).length,
  });
  await writeJson(join(dir, 'text_encoder', 'config.json'), {
    architectures: ['UMT5EncoderModel'],
    model_type: 'umt5',
    ...configs.textEncoder,
    relative_attention_max_distance: 128,
    layer_norm_epsilon: 1e-6,
    feed_forward_proj: 'gated-gelu',
    dense_act_fn: 'gelu_new',
    is_gated_act: true,
    dtype: tensors.text_encoder[0]?.dtype === 'BF16' ? 'bfloat16' : 'float32',
    pad_token_id: 0,
    eos_token_id: 1,
  });
}

async function writeJson(path: string, content: unknown): Promise<void> {
  await writeFile(path, `${JSON.stringify(content, null, 2)}\n`);
}
