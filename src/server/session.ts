/**
 * One client's episode: takes messages and gives answers, with a policy in between that sees nothing unchecked. Owned by the server, one for each
 * connection. It knows no socket, no timer and no token.
 */
import { PremotorError } from '../errors.js';
import type { Chunk, Frame, Policy, PredictOptions, ResetResult } from '../policy/contract.js';
import { Cameras } from '../policy/validate.js';
import { decode, type Encodable, type WireMap } from './msgpack.js';
import { arrayOf } from './ndarray.js';
import {
  commitOf,
  flag,
  flatObservationOf,
  invalid,
  kindOf,
  observationOf,
  promptOf,
  type RequestKind,
  type RequestRules,
  samplingOf,
} from './request.js';

export interface SessionOptions {
  /** Seed of predictions that ask for none. */
  readonly seed: number;
  readonly pictureSideMax: number;
  readonly aliases: ReadonlyMap<string, string>;
}

/** `unnamed`: reset without a prompt; the next prediction brings it. */
type Episode = 'none' | 'unnamed' | 'begun' | 'observed' | 'committed';

export interface Answer {
  readonly kind: RequestKind;
  readonly fields: Readonly<Record<string, Encodable>>;
}

export class Session {
  readonly #policy: Policy;
  readonly #options: SessionOptions;
  readonly #rules: RequestRules;
  readonly #abort = new AbortController();
  #episode: Episode = 'none';
  #running: Promise<unknown> | undefined;

  constructor(policy: Policy, options: SessionOptions) {
    this.#policy = policy;
    this.#options = options;
    const { job } = policy;
    this.#rules = { job, cameras: new Cameras(job.obs_cam_keys), pictureSideMax: options.pictureSideMax, aliases: options.aliases };
  }

  /** Answers one message; the next is taken when it is answered. Errors: those of decode and of the request, REQUEST_OVERLAP, the policy's. */
  async handle(message: Uint8Array): Promise<Answer> {
    if (this.#running !== undefined) throw overlapping();
    const running = this.#answer(message);
    this.#running = running;
    try {
      return await running;
    } finally {
      this.#running = undefined;
    }
  }

  /** Stops what is being computed, waits for it, and forgets the episode. The policy stays open. Idempotent. */
  async close(reason: string): Promise<void> {
    this.#abort.abort(new Error(reason));
    await this.#running?.catch(() => undefined);
    this.#episode = 'none';
  }

  async #answer(message: Uint8Array): Promise<Answer> {
    const fields = decode(message);
    if (!(fields instanceof Map)) throw invalid('the message', 'a map', fields);
    const kind = kindOf(fields);
    return { kind, fields: await this.#serve(kind, fields) };
  }

  #serve(kind: RequestKind, fields: WireMap): Promise<Record<string, Encodable>> {
    switch (kind) {
      case 'reset':
        return this.#reset(fields);
      case 'commit':
        return this.#commit(fields);
      case 'infer':
        return this.#infer(fields);
      case 'act':
        return this.#act(fields);
    }
  }

  async #reset(fields: WireMap): Promise<Record<string, Encodable>> {
    const prompt = promptOf(fields);
    if (prompt === undefined) {
      this.#episode = 'unnamed';
      return {};
    }
    const { source, cleanedPrompt, tokens, warnings } = await this.#begin(prompt);
    return this.#more(fields, { source, cleaned_prompt: cleanedPrompt, tokens, warnings: [...warnings] });
  }

  async #begin(prompt: string): Promise<ResetResult> {
    this.#episode = 'none';
    const result = await this.#policy.reset({ prompt, signal: this.#abort.signal });
    this.#episode = 'begun';
    return result;
  }

  /** What another premotor wants to know beside the protocol's answer, for those who ask with `premotor`. */
  #more(fields: WireMap, about: Readonly<Record<string, Encodable>>): Record<string, Encodable> {
    if (!flag(fields, 'premotor')) return {};
    return { premotor: { ...about, cache: { ...this.#policy.cache } } };
  }

  async #infer(fields: WireMap): Promise<Record<string, Encodable>> {
    if (this.#episode === 'none') throw noEpisode('infer');
    const { job } = this.#policy;
    const prompt = promptOf(fields);
    const sampling = samplingOf(fields, job);
    // Once something is committed the episode goes on from its memory: clients that send their first pictures again are not asked for new ones.
    const obs = this.#episode === 'committed' ? undefined : observationOf(fields.get('obs'), this.#rules);
    if (this.#episode === 'unnamed') await this.#begin(this.#named(prompt));
    const chunk = await this.#predict({ ...sampling, ...(obs === undefined ? {} : { obs }) });
    if (this.#episode === 'begun') this.#episode = 'observed';
    const { actions, shape, latents, frameIndex: frame_index, timing } = chunk;
    const more = this.#more(fields, { latents: arrayOf(latents, latents.shape), frame_index, timing: { ...timing } });
    return { action: arrayOf(actions, shape), ...more };
  }

  async #commit(fields: WireMap): Promise<Record<string, Encodable>> {
    if (this.#episode === 'none' || this.#episode === 'unnamed') throw noEpisode('commit');
    if (this.#episode === 'begun') {
      const message = 'commit: expected a prediction before it, which brings the first observation, found none. Send infer first.';
      throw new PremotorError('OBS_REQUIRED', message, { expected: 'a prediction', found: 'none' });
    }
    const { obs, actions } = commitOf(fields, this.#rules, this.#episode === 'observed');
    const { latents, frameIndex: frame_index, timing } = await this.#policy.commit({ obs, actions });
    this.#episode = 'committed';
    return this.#more(fields, { latents: arrayOf(latents, latents.shape), frame_index, timing: { ...timing } });
  }

  /**
   * openpi's clients send what they see and want the next actions, [actions, channels]: they have no memory to commit to, so each of their requests
   * is an episode of its own. The actions of its first latent frame are padding and are not in the answer.
   */
  async #act(fields: WireMap): Promise<Record<string, Encodable>> {
    const { job } = this.#policy;
    const obs = flatObservationOf(fields, this.#rules);
    const sampling = samplingOf(fields, job);
    const prompt = this.#named(promptOf(fields));
    if (job.frame_chunk_size < 2) {
      const remedy = 'Use reset, infer and commit with this job.';
      throw invalid('the message', 'a request with reset or obs, because the one latent frame of this job is padding', 'a flat observation', remedy);
    }
    await this.#begin(prompt);
    this.#episode = 'none';
    return { actions: byAction(await this.#predict({ ...sampling, obs })) };
  }

  #named(prompt: string | undefined): string {
    const named = prompt ?? this.#policy.job.prompt;
    if (named === undefined)
      throw invalid('prompt', 'the instruction of the episode', undefined, 'Send it with reset or infer, or put it in the job.');
    return named;
  }

  #predict(
    options: { readonly seed?: bigint; readonly obs?: readonly Frame[] } & Pick<PredictOptions, 'videoSteps' | 'actionSteps'>,
  ): Promise<Chunk> {
    return this.#policy.predict({ seed: this.#options.seed, ...options, signal: this.#abort.signal });
  }
}

/** [used, K, H] without its first group, as [(K - 1) H, used]. */
function byAction({ actions, shape }: Pick<Chunk, 'actions' | 'shape'>): Encodable {
  const [used, frames, perFrame] = shape;
  const [all, padding] = [frames * perFrame, perFrame];
  const turned = new Float32Array((all - padding) * used);
  for (let action = padding; action < all; action++) {
    for (let channel = 0; channel < used; channel++) turned[(action - padding) * used + channel] = actions[channel * all + action] as number;
  }
  return arrayOf(turned, [all - padding, used]);
}

export function overlapping(): PremotorError {
  const [expected, found] = ['a message after the answer to the last one', 'one before it'];
  const message = `The message was refused: expected ${expected}, found ${found}. Send one request at a time on a connection.`;
  return new PremotorError('REQUEST_OVERLAP', message, { expected, found });
}

function noEpisode(request: string): PremotorError {
  const message = `${request}: expected an episode, found none. Send reset with a prompt first.`;
  return new PremotorError('NO_EPISODE', message, { expected: 'an episode', found: 'none' });
}
