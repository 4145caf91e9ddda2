/**
 * What a checkpoint needs and costs, by counting: memory of weights and KV cache per precision, arithmetic per pass and chunk, and the time that
 * known devices would at least take. Owned by inspect.ts; pure functions, nothing here measures or loads anything.
 */
import type { NativeInspection } from '../native.js';
import type { Job } from '../policy/contract.js';
import { latentSizeOf } from '../policy/job.js';
import { type CpuPrecision, defaultKvCache, isQuantised, type KvCache, PRECISIONS } from '../policy/precision.js';

type Component = NativeInspection['components'][number];
type StoredTensor = Component['tensors'][number];

/** Text rows that every token attends to, zero-padded ones too. */
const TEXT_ROWS = 512;

/** The sizes that decide cost, from transformer/config.json. */
export interface Dimensions {
  readonly heads: number;
  readonly headDim: number;
  readonly width: number;
  readonly layers: number;
  readonly ffn: number;
  readonly patchVolume: number;
  readonly channels: number;
  readonly actionDim: number;
}

const isSize = (value: unknown): value is number => typeof value === 'number' && Number.isInteger(value) && value > 0;

/** Undefined when a field is missing (the inspection lists that) or when the form is another one (mixture of transformers: not modelled). */
export function dimensionsOf(config: Readonly<Record<string, unknown>> | null): Dimensions | undefined {
  if (config === null || config['architecture'] === 'mot') return undefined;
  const { num_attention_heads: heads, attention_head_dim: headDim, num_layers: layers, ffn_dim: ffn, in_channels: channels } = config;
  const { action_dim: actionDim, patch_size: patch } = config;
  if (!isSize(heads) || !isSize(headDim) || !isSize(layers) || !isSize(ffn) || !isSize(channels) || !isSize(actionDim)) return undefined;
  if (!Array.isArray(patch) || patch.length !== 3 || !patch.every(isSize)) return undefined;
  const patchVolume = (patch as number[]).reduce((product, size) => product * size, 1);
  return { heads, headDim, width: heads * headDim, layers, ffn, patchVolume, channels, actionDim };
}

/** Tokens and cache entries of a job. */
export interface JobGeometry {
  /** Per chunk. */
  readonly videoTokens: number;
  readonly actionTokens: number;
  /** KV-cache entries per layer and guidance row. */
  readonly capacity: number;
  /** Entries beside these that an asynchronous prediction needs for a while: two chunks and a pass that is under way. */
  readonly headroom: number;
  /** 2 with guidance, else 1. */
  readonly rows: number;
}

export function geometryOf(job: Job, patch: readonly [number, number, number] = job.patch_size): JobGeometry {
  const [rows, columns] = latentSizeOf(job);
  const videoTokens = (job.frame_chunk_size / patch[0]) * Math.floor(rows / patch[1]) * Math.floor(columns / patch[2]);
  const actionTokens = job.frame_chunk_size * job.action_per_frame;
  const capacity = Math.floor(job.attn_window / 2) * (videoTokens + actionTokens);
  const headroom = 2 * (videoTokens + actionTokens) + Math.max(videoTokens, actionTokens);
  return { videoTokens, actionTokens, capacity, headroom, rows: job.guidance_scale > 1 || job.action_guidance_scale > 1 ? 2 : 1 };
}

/** Rows that the engine's cache has for so many entries: whole panels of 32 (cpp/ops/kv_layout.h). */
export const cacheRows = (entries: number): number => 32 * Math.ceil(entries / 32);

/** Of the values in a unit of the KV cache, of each of them, and of a head's scale. */
const KV_UNITS: Readonly<Record<KvCache, { readonly values: number; readonly valueBytes: number; readonly scaleBytes: number }>> = {
  f32: { values: 1, valueBytes: 4, scaleBytes: 0 },
  bf16: { values: 2, valueBytes: 2, scaleBytes: 0 },
  int8: { values: 2, valueBytes: 1, scaleBytes: 4 },
};

/** Bytes of keys and values of one guidance row. Values of a head are padded to panels of 32, keys to whole units (cpp/ops/kv_layout.h). */
export function cacheBytes(dims: Dimensions, entries: number, kvCache: KvCache): number {
  const { values, valueBytes, scaleBytes } = KV_UNITS[kvCache];
  const perHead = values * Math.ceil(dims.headDim / values) + 32 * Math.ceil(dims.headDim / 32);
  return entries * dims.layers * dims.heads * (perHead * valueBytes + 2 * scaleBytes);
}

/** As the engine holds it: matrices in the stored type or narrower, vectors in float32; unused tensors are never read. */
export function weightBytes(tensors: readonly StoredTensor[], precision: CpuPrecision): number {
  return tensors.filter((tensor) => tensor.used).reduce((sum, tensor) => sum + residentBytes(tensor, precision), 0);
}

/** The linear layers of the transformer's blocks, which quantised precisions quantise. */
const BLOCK_LINEAR = /^(?:action_)?blocks\.\d+\.(?:attn[12]\.to_(?:q|k|v|out\.0)|ffn\.net\.(?:0\.proj|2))\.weight$/;

/** Bytes of a packed matrix: panels of 32 outputs; int8 with a scale and a sum per output, int4 with a scale per 32 inputs (cpp/ops/cpu/packed.h). */
function quantisedBytes([rows = 0, columns = 0]: readonly number[], precision: 'int8' | 'int4'): number {
  const perOutput = precision === 'int8' ? 4 * Math.ceil(columns / 4) + 8 : 4 * Math.ceil(columns / 8) + 2 * Math.ceil(columns / 32);
  return 32 * Math.ceil(rows / 32) * perOutput;
}

function residentBytes({ name, shape, dtype }: StoredTensor, precision: CpuPrecision): number {
  if (isQuantised(precision) && BLOCK_LINEAR.test(name)) return quantisedBytes(shape, precision);
  const elements = shape.reduce((product, size) => product * size, 1);
  const isMatrix = shape.filter((size) => size > 1).length > 1;
  if (!isMatrix) return elements * 4;
  // float16 is widened when it is opened; bfloat16 stays as it is, also for float32 arithmetic.
  return elements * (precision === 'bf16' || dtype === 'BF16' ? 2 : 4);
}

/** The largest layer's weights: the text encoder streams through memory one layer at a time. */
export function largestLayerBytes(tensors: readonly StoredTensor[]): number {
  const layers = new Map<string, number>();
  for (const { name, bytes } of tensors) {
    const layer = /^(?:encoder\.)?block\.\d+\./.exec(name)?.[0];
    if (layer !== undefined) layers.set(layer, (layers.get(layer) ?? 0) + bytes);
  }
  return Math.max(0, ...layers.values());
}

export interface MemoryNeed {
  readonly precision: CpuPrecision;
  readonly kvCache: KvCache;
  readonly transformer: number;
  readonly vae: number;
  /** All guidance rows; undefined without a job. */
  readonly cache: number | undefined;
  readonly total: number;
  /** Not in the total: only while a new instruction is encoded. */
  readonly textEncoderPeak: number;
}

/** Bytes of keys and values of all guidance rows, the entries for asynchronous predictions among them. */
export const wholeCacheBytes = (dims: Dimensions, { rows, capacity, headroom }: JobGeometry, kvCache: KvCache): number =>
  rows * cacheBytes(dims, cacheRows(capacity + headroom), kvCache);

/** Resident bytes at each precision, without activations; with the precision's own KV cache unless one is given. */
export function memoryNeeds(
  inspection: NativeInspection,
  dims: Dimensions | undefined,
  geometry: JobGeometry | undefined,
  given?: KvCache,
): MemoryNeed[] {
  const tensorsOf = (name: string): readonly StoredTensor[] => inspection.components.find((component) => component.name === name)?.tensors ?? [];
  return PRECISIONS.map((precision) => {
    const transformer = weightBytes(tensorsOf('transformer'), precision);
    const vae = weightBytes(tensorsOf('vae'), precision);
    const kvCache = given ?? defaultKvCache(precision);
    const cache = dims === undefined || geometry === undefined ? undefined : wholeCacheBytes(dims, geometry, kvCache);
    const textEncoderPeak = largestLayerBytes(tensorsOf('text_encoder'));
    return { precision, kvCache, transformer, vae, cache, total: transformer + vae + (cache ?? 0), textEncoderPeak };
  });
}

/** Weights that one token meets in the blocks, text keys and values being kept per instruction. */
export function activeWeights(dims: Dimensions): number {
  return dims.layers * (6 * dims.width ** 2 + 2 * dims.width * dims.ffn);
}

/**
 * Floating-point operations of one pass of `tokens` tokens for one guidance row, attending to `entries` cached tokens (its own among them): blocks,
 * embedding and head. Time embeddings and norms are left out (below 1 % at released size).
 */
export function passFlops(dims: Dimensions, modality: 'video' | 'action', tokens: number, entries: number): number {
  const features = modality === 'video' ? dims.channels * dims.patchVolume : dims.actionDim;
  const attention = 4 * dims.width * dims.layers * (entries + TEXT_ROWS);
  return tokens * (2 * activeWeights(dims) + attention + 4 * dims.width * features);
}

/** One kind of pass in a control cycle. */
export interface PassCount {
  readonly name: string;
  readonly modality: 'video' | 'action';
  readonly count: number;
  /** Guidance rows computed. */
  readonly rows: number;
}

/**
 * The passes of one control cycle as the engine runs them: a second guidance row only where it is read, and in server mode no last action pass, whose
 * cache entries the commit would drop unread.
 */
export function cyclePasses(job: Job): PassCount[] {
  const { rows } = geometryOf(job);
  const server = job.infer_mode === 'server';
  const video = job.video_exec_step === -1 ? job.num_inference_steps + 1 : job.video_exec_step;
  const passes: PassCount[] = [
    { name: 'denoise video', modality: 'video', count: video, rows },
    { name: 'denoise actions', modality: 'action', count: job.action_num_inference_steps, rows: job.action_guidance_scale > 1 ? rows : 1 },
  ];
  if (!server) passes.push({ name: 'keep actions', modality: 'action', count: 1, rows });
  if (server)
    passes.push({ name: 'commit video', modality: 'video', count: 1, rows }, { name: 'commit actions', modality: 'action', count: 1, rows });
  return passes;
}

/** Achieved, not peak, rates of a device: what well-made kernels reach (docs/PERF.md). */
export interface DeviceRates {
  readonly name: string;
  readonly gigabytesPerSecond: number;
  readonly teraflops: number;
}

export const knownDevices: readonly DeviceRates[] = [
  { name: 'Jetson AGX Orin', gigabytesPerSecond: 173, teraflops: 29.9 },
  { name: 'Jetson Thor', gigabytesPerSecond: 240, teraflops: 110 },
  { name: 'RTX 4090', gigabytesPerSecond: 857, teraflops: 132 },
  { name: 'H100', gigabytesPerSecond: 2680, teraflops: 643 },
];

export interface CycleCost {
  readonly passes: readonly (PassCount & { readonly flopsPerRow: number })[];
  readonly flops: number;
  readonly devices: readonly {
    readonly name: string;
    readonly rates: DeviceRates;
    readonly videoPassMs: number;
    readonly actionPassMs: number;
    readonly cycleMs: number;
  }[];
}

/** Cost of one cycle with a full cache, transformer only. Times are floors at bf16: the larger of arithmetic and memory traffic. */
export function cycleCost(dims: Dimensions, job: Job, devices: readonly DeviceRates[] = knownDevices): CycleCost {
  const geometry = geometryOf(job);
  const tokens = { video: geometry.videoTokens, action: geometry.actionTokens };
  const passes = cyclePasses(job).map((pass) => ({ ...pass, flopsPerRow: passFlops(dims, pass.modality, tokens[pass.modality], geometry.capacity) }));
  const flops = passes.reduce((sum, pass) => sum + pass.count * pass.rows * pass.flopsPerRow, 0);
  const floorMs = (rates: DeviceRates, flopsPerRow: number, rows: number): number => {
    const bytes = 2 * activeWeights(dims) + rows * cacheBytes(dims, geometry.capacity, 'bf16');
    return Math.max((rows * flopsPerRow) / (rates.teraflops * 1e9), bytes / (rates.gigabytesPerSecond * 1e6));
  };
  const floors = devices.map((rates) => {
    const ms = passes.map((pass) => floorMs(rates, pass.flopsPerRow, pass.rows));
    const of = (name: string): number => ms[passes.findIndex((pass) => pass.name === name)] ?? 0;
    const cycleMs = passes.reduce((sum, pass, index) => sum + pass.count * (ms[index] ?? 0), 0);
    return { name: rates.name, rates, videoPassMs: of('denoise video'), actionPassMs: of('denoise actions'), cycleMs };
  });
  return { passes, flops, devices: floors };
}
