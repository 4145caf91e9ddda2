/**
 * The stop button: one press, by finger, mouse or key, asks for a stop at once, by whichever way there is, and says whether it was heard. It asks for
 * nothing else, and is never disabled: a stop that comes twice does no harm.
 */
import { byId, setText } from './dom.js';
import type { Link } from './link.js';

const POST_TIMEOUT_MS = 3000;

export class StopButton {
  readonly #button = byId<HTMLButtonElement>('stop');
  readonly #note = byId('stop-note');
  readonly #usual = this.#note.textContent ?? '';
  readonly #link: Link;

  constructor(link: Link) {
    this.#link = link;
    // On the way down, not on the way up; a key has only the click.
    this.#button.addEventListener('pointerdown', () => void this.#press());
    this.#button.addEventListener('click', ({ detail }) => {
      if (detail === 0) void this.#press();
    });
  }

  async #press(): Promise<void> {
    this.#say('Stop asked', 'Asking for a stop ...');
    if (this.#link.isOpen) this.#link.send({ type: 'stop' });
    try {
      // Also beside an open connection, which may be dead without knowing.
      const answer = await fetch('/stop', { method: 'POST', signal: AbortSignal.timeout(POST_TIMEOUT_MS) });
      if (!answer.ok) throw new Error(`the robot's computer answered ${answer.status}`);
      this.heard();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.#say('Stop', `THE STOP WAS NOT HEARD (${why}). Use the robot's own emergency stop.`);
    }
  }

  /** The supervisor has the request. */
  heard(): void {
    this.#say('Stop requested', `Stop requested. What the robot does about it stands beside this button. ${this.#usual}`);
  }

  /** Another run began. */
  reset(): void {
    this.#say('Stop', this.#usual);
  }

  #say(label: string, note: string): void {
    setText(this.#button, label);
    setText(this.#note, note);
    this.#button.classList.toggle('asked', label !== 'Stop');
  }
}
