/** Live pictures beside what the policy imagined for the same moment, each with the time of the robot's clock that it shows. */
import type { PictureHead, RunText } from '../messages.js';
import { byId, fixed, make, setText } from './dom.js';

/** An older live picture is said to be old. */
const OLD_S = 0.5;

interface Screen {
  readonly canvas: HTMLCanvasElement;
  readonly empty: HTMLElement;
  readonly frame: HTMLElement;
  readonly time: HTMLElement;
  timeS: number | undefined;
  /** Pictures are decoded out of turn; an older one never covers a newer one. */
  asked: number;
}

export class CameraPanel {
  readonly #list = byId('camera-list');
  readonly #note = byId('imagined-note');
  readonly #screens = new Map<string, Screen>();

  begin(run: RunText): void {
    this.#screens.clear();
    this.#list.replaceChildren();
    const empty = run.imagines ? 'imagined: none yet' : `imagined frames: not while thinking ahead (${run.mode})`;
    run.cameras.forEach(({ label, isUsed }, index) => {
      const pair = make('div', run.imaginedParts === 'cameras' ? 'pair' : 'pair single');
      pair.append(make('h3', '', label), this.#screen(`live ${index}`, `live picture of camera ${label}`, 'live', 'no picture yet'));
      if (run.imaginedParts === 'cameras')
        pair.append(
          this.#screen(
            `imagined ${index}`,
            `what the policy imagines for camera ${label}`,
            'imagined',
            isUsed ? empty : 'this policy does not use this camera',
          ),
        );
      this.#list.append(pair);
    });
    if (run.imaginedParts === 'joined') {
      const pair = make('div', 'pair single');
      pair.append(make('h3', '', 'all cameras'), this.#screen('imagined -1', 'what the policy imagines, all cameras', 'imagined', empty));
      this.#list.append(pair);
    }
    const live = 'Imagined pictures are decoded while the arm executes them, only for viewers, and stand beside the live picture of the same moment.';
    const after = 'The last one is shown after the episode, if the recorder decoded it.';
    const later = `Imagined frames: not while thinking ahead (mode ${run.mode}). ${after}`;
    setText(this.#note, run.imagines ? live : later);
  }

  #screen(key: string, label: string, caption: string, text: string): HTMLElement {
    const figure = make('figure');
    const frame = make('div', 'screen');
    const canvas = document.createElement('canvas');
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', label);
    const empty = make('div', 'empty', text);
    frame.append(canvas, empty);
    const words = make('figcaption');
    const time = make('span');
    words.append(make('span', '', caption), time);
    figure.append(frame, words);
    this.#screens.set(key, { canvas, empty, frame, time, timeS: undefined, asked: 0 });
    return figure;
  }

  async show({ kind, camera, timeS }: PictureHead, jpeg: Blob): Promise<void> {
    const screen = this.#screens.get(`${kind} ${camera}`);
    if (!screen) return;
    const asked = ++screen.asked;
    const bitmap = await createImageBitmap(jpeg);
    if (asked === screen.asked) {
      const { canvas } = screen;
      if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
        canvas.width = bitmap.width;
        canvas.height = bitmap.height;
        screen.frame.style.setProperty('--ratio', `${bitmap.width} / ${bitmap.height}`);
      }
      canvas.getContext('2d')?.drawImage(bitmap, 0, 0);
      screen.empty.hidden = true;
      screen.timeS = timeS;
    }
    bitmap.close();
  }

  /** Says how old the pictures are. */
  tick(nowS: number): void {
    for (const [key, { time, timeS }] of this.#screens) {
      if (timeS === undefined) continue;
      const ageS = nowS - timeS;
      const isOld = key.startsWith('live') && ageS > OLD_S;
      setText(time, `t ${fixed(timeS, 2)} s${isOld ? `, ${fixed(ageS, 1)} s old` : ''}`);
    }
  }
}
