/**
 * Pictures of what an asynchronous episode assumed: the frames that were seen, the same frames as they were imagined while their actions were being
 * executed, and as the prediction of these actions had foreseen them. Listens to one episode; the pictures are decoded afterwards.
 */
import type { CycleEvent } from '../control/events.js';
import type { Policy } from '../policy/contract.js';
import { framesOf, splitFrames } from '../policy/tensor.js';
import type { SheetRow } from './contact-sheet.js';

/** Pictures that the decoder gives for every latent frame but the first. */
const PICTURES_PER_FRAME = 4;

export class AssumedFilm {
  readonly #seen: Float32Array[] = [];
  readonly #assumed = new Map<number, { readonly first: number; readonly frame: Float32Array }>();
  readonly #foreseen = new Map<number, { readonly first: number; readonly frame: Float32Array }>();
  #shape: readonly number[] = [];

  /** Give this to ControlCycle.on. */
  readonly listen = (event: CycleEvent): void => {
    if (event.type === 'remembered') {
      this.#shape = event.latents.shape;
      splitFrames(event.latents).forEach((frame, index) => {
        this.#seen[event.frameIndex + index] = frame;
      });
    }
    if (event.type !== 'predicted') return;
    const assumed = event.assumed ? splitFrames(event.assumed) : [];
    assumed.forEach((frame, index) => {
      this.#assumed.set(event.frameIndex - assumed.length + index, { first: event.frameIndex - assumed.length, frame });
    });
    splitFrames(event.latents).forEach((frame, index) => {
      this.#foreseen.set(event.frameIndex + index, { first: event.frameIndex, frame });
    });
  };

  /** Latent frames that all three rows can show: the last of what was assumed at once. */
  #moments(most: number): number[] {
    const all = [...this.#assumed].flatMap(([frame, { first }]) => {
      const isLast = this.#assumed.get(frame + 1)?.first !== first;
      return isLast && first > 0 && this.#seen[frame] && this.#foreseen.get(frame)?.first === first ? [frame] : [];
    });
    const count = Math.min(most, all.length);
    return Array.from({ length: count }, (_, index) => all[Math.round((index * (all.length - 1)) / Math.max(1, count - 1))] as number);
  }

  /** Three rows of pictures at up to `most` moments. */
  async rows(policy: Pick<Policy, 'decode'>, most: number, frameS: number): Promise<SheetRow[]> {
    const moments = this.#moments(most);
    const row = async (label: string, known: (frame: number) => { first: number; frame: Float32Array }[]): Promise<SheetRow> => {
      const pictures: SheetRow['pictures'][number][] = [];
      for (const moment of moments) {
        // The decoder remembers: what was really seen comes before.
        const tail = known(moment);
        const frames = [...this.#seen.slice(0, moment + 1 - tail.length), ...tail.map(({ frame }) => frame)];
        const film = await policy.decode(framesOf(frames, this.#shape));
        const picture = film[PICTURES_PER_FRAME * moment];
        if (picture) pictures.push({ timeS: moment * frameS, width: picture.width, height: picture.height, data: picture.data });
      }
      return { label, pictures };
    };
    const tailOf = (from: ReadonlyMap<number, { readonly first: number; readonly frame: Float32Array }>) => (moment: number) => {
      const first = this.#assumed.get(moment)?.first ?? moment;
      return Array.from({ length: moment - first + 1 }, (_, index) => from.get(first + index) as { first: number; frame: Float32Array });
    };
    return [
      await row('seen', () => []),
      await row('imagined from the actions that were being executed', tailOf(this.#assumed)),
      await row('foreseen by the prediction of these actions, one chunk earlier', tailOf(this.#foreseen)),
    ];
  }
}
