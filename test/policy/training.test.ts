/**
 * The training's pass is the runtime's: test/goldens/training holds what the training code computes for whole episodes at once, and here the
 * runtime goes through them chunk by chunk from its cache. So this compares masks, positions, noise levels, text rows, the autoencoder's two ways of
 * encoding, and what export writes. Deliberate mistakes in the training's masks, positions or text rows change the outputs by 2e-3 and more; the
 * limit is far below that and above float32 noise, which is 5e-7 behind the network and 3e-6 behind the autoencoder.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import t from 'tap';
import { type Frame, loadPolicy, type Policy, PremotorError, type Trace, type TraceTensor } from '../../src/index.js';
import { loadNative } from '../../src/native.js';
import { TextTokenizer } from '../../src/text/tokenizer.js';
import { goldens, jobOf } from '../support/fixtures.js';
import { Comparison } from '../support/golden.js';
import { readSafetensors } from '../support/safetensors.js';

const LIMIT = 1e-5;

/** Why the engine cannot run here, or false. */
function skipReason(): string | false {
  try {
    loadNative();
    return false;
  } catch (error) {
    if (error instanceof PremotorError && error.code === 'NATIVE_MISSING') return `THE ENGINE IS NOT TESTED: ${error.message}`;
    throw error;
  }
}
const skip = skipReason();

interface Case {
  readonly chunk: number;
  readonly chunks: number;
  readonly video_steps: number;
  readonly action_steps: number;
  readonly prompt: number;
}

interface About {
  readonly prompts: readonly string[];
  readonly cases: readonly Case[];
  /** Texts and the ids that Python's tokenizer gives them. */
  readonly tokens: Readonly<Record<string, readonly number[]>>;
}

const folder = join(goldens, 'training');
const recorded = readSafetensors(join(folder, 'trace.safetensors'));
const about = JSON.parse(readFileSync(join(folder, 'trace.json'), 'utf8')) as About;

function expected(name: string): TraceTensor {
  const tensor = recorded.get(name);
  if (tensor === undefined) throw new Error(`${name} is not recorded`);
  return tensor;
}

/** Frames first .. first + count of an array whose frames lie on `axis`. */
function frames({ data, shape }: TraceTensor, axis: number, first: number, count: number): Float32Array {
  const size = shape.slice(axis + 1).reduce((product, length) => product * length, 1);
  const stride = size * (shape[axis] as number);
  const parts = Array.from({ length: data.length / stride }, (_, i) => data.subarray(i * stride + first * size, i * stride + (first + count) * size));
  return Float32Array.from(parts.flatMap((part) => [...part]));
}

async function picturesOf(job: Record<string, unknown>): Promise<Frame[][]> {
  const [height, width] = [job['height'] as number, job['width'] as number];
  const film = await sharp(join(folder, 'pictures.png')).removeAlpha().raw().toBuffer();
  const size = height * width * 3;
  return Array.from({ length: film.length / size }, (_, i) => {
    const data = new Uint8Array(film.subarray(i * size, (i + 1) * size));
    return [{ camera: 'cam_front', width, height, data, capturedAtNs: BigInt(i) }];
  });
}

/** The pictures of latent frames first .. first + count, of which frame 0 is one picture and any other four; frame 0's own is left out. */
const momentsOf = (pictures: Frame[][], first: number, count: number): Frame[][] =>
  pictures.slice(Math.max(1, 4 * first - 3), 4 * (first + count) - 3);

/** Goes through one recorded episode. */
class Replay {
  readonly #policy: Policy;
  readonly #case: Case;
  readonly #name: string;
  readonly #pictures: Frame[][];
  readonly #comparison: Comparison;

  constructor(policy: Policy, index: number, pictures: Frame[][], comparison: Comparison) {
    this.#policy = policy;
    this.#case = about.cases[index] as Case;
    this.#name = `case${index}`;
    this.#pictures = pictures;
    this.#comparison = comparison;
  }

  #noise(kind: 'video' | 'action' | 'imagined', chunk: number): Float32Array {
    return frames(expected(`noise.${kind}`), 2, chunk * this.#case.chunk, this.#case.chunk);
  }

  #actions(chunk: number): Float32Array {
    return frames(expected('actions'), 1, chunk * this.#case.chunk, this.#case.chunk);
  }

  #compare(chunk: number, name: string, found: Trace | undefined, as = name): void {
    this.#comparison.tensor(`c${chunk}.${as}`, found?.get(name), expected(`${this.#name}.c${chunk}.${as}`));
  }

  async reset(): Promise<void> {
    const { prompt } = this.#case;
    const { trace, tokens } = await this.#policy.reset({ prompt: about.prompts[prompt] as string, trace: true });
    const [ids, rows] = [expected(`prompt${prompt}.ids`), expected(`prompt${prompt}.rows`)];
    this.#comparison.equal('token ids', [...(trace?.get('token_ids_pos')?.data.subarray(0, tokens) ?? [])], [...ids.data]);
    this.#comparison.floats('prompt rows', trace?.get('prompt_embeds_pos')?.data.subarray(0, rows.data.length) ?? [], rows.data);
  }

  async predict(chunk: number): Promise<void> {
    const { video_steps: videoSteps, action_steps: actionSteps } = this.#case;
    const obs = chunk === 0 ? { obs: this.#pictures[0] as Frame[] } : {};
    const noise = { video: this.#noise('video', chunk), action: this.#noise('action', chunk) };
    const { trace } = await this.#policy.predict({ ...obs, noise, videoSteps, actionSteps, trace: true });
    for (let step = 0; step < videoSteps; step++) this.#compare(chunk, `video.s${step}.out`, trace);
    for (let step = 0; step < actionSteps; step++) this.#compare(chunk, `action.s${step}.out`, trace);
    this.#compare(chunk, 'latents', trace);
    this.#compare(chunk, 'action.final_norm', trace, 'action.norm');
  }

  async commit(chunk: number): Promise<void> {
    const [first, count] = [chunk * this.#case.chunk, this.#case.chunk];
    const { trace } = await this.#policy.commit({ obs: momentsOf(this.#pictures, first, count), actions: this.#actions(chunk), trace: true });
    const seen = trace?.get('video.input')?.data ?? [];
    this.#comparison.floats(`c${chunk}.seen`, seen, frames(expected('latents'), 2, first, count));
  }

  /** Commits `chunk` and lets the runtime imagine what the actions of the chunk after it will do. */
  async imagine(chunk: number): Promise<void> {
    const { trace } = await this.#policy.predictNext({
      obs: momentsOf(this.#pictures, chunk * this.#case.chunk, this.#case.chunk),
      executed: this.#actions(chunk),
      executing: this.#actions(chunk + 1),
      noise: { imagined: this.#noise('imagined', chunk + 1) },
      videoSteps: 1,
      actionSteps: 1,
      trace: true,
    });
    this.#compare(chunk + 1, 'imagined', trace);
  }
}

for (const [index, { chunk, chunks, video_steps: videoSteps, action_steps: actionSteps }] of about.cases.entries()) {
  const name = `${chunks} chunks of ${chunk}, ${videoSteps} video and ${actionSteps} action steps`;
  t.test(name, { skip }, async (t) => {
    const job = jobOf('training', { frame_chunk_size: chunk, imagine_steps: 1 });
    const policy = await loadPolicy({ checkpoint: join(folder, 'checkpoint'), job, promptCache: false, threads: 1 });
    t.teardown(() => policy.close());
    t.same(policy.info.warnings, []);
    // The released layout has a text embedder for actions too, which nothing uses.
    t.ok(policy.info.unusedTensors.every((tensor) => tensor.startsWith('transformer/condition_embedder_action.text_embedder.')));
    const comparison = new Comparison(LIMIT);
    const replay = new Replay(policy, index, await picturesOf(job), comparison);
    await replay.reset();
    for (let at = 0; at < chunks; at++) {
      await replay.predict(at);
      await replay.commit(at);
    }
    if (videoSteps === 1) {
      await replay.reset();
      await replay.predict(0);
      for (let at = 0; at + 1 < chunks; at++) await replay.imagine(at);
    }
    for (const line of comparison.report()) t.comment(line);
    for (const failure of comparison.failures) t.fail(failure);
    t.equal(comparison.failures.length, 0, `${comparison.compared} comparisons, relative RMS <= ${LIMIT}`);
  });
}

t.test('the written tokenizer gives the ids that training saw', async (t) => {
  const tokenizer = await TextTokenizer.open(join(folder, 'checkpoint', 'tokenizer'));
  for (const [text, ids] of Object.entries(about.tokens)) t.same([...tokenizer.encode(text)], ids, text);
});
