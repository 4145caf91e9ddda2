/** The list of faults, warnings and notes: what it is, when it came, what to do. New ones are read out; known ones are only counted up. */
import type { FaultText } from '../messages.js';
import { byId, fixed, make } from './dom.js';

export class FaultPanel {
  readonly #panel = byId('faults');
  readonly #list = byId('fault-list');
  readonly #shown = new Map<string, HTMLElement>();

  show(faults: readonly FaultText[]): void {
    this.#panel.hidden = faults.length === 0;
    const wanted = new Set<string>();
    for (const fault of [...faults].reverse()) {
      const key = `${fault.kind} ${fault.code} ${fault.message}`;
      wanted.add(key);
      const known = this.#shown.get(key);
      const item = known ?? make('li', fault.kind);
      item.querySelector('.when')?.replaceChildren(when(fault));
      if (!known) item.append(...parts(fault));
      this.#shown.set(key, item);
      if (this.#list.firstElementChild !== item) this.#list.prepend(item);
    }
    for (const [key, item] of this.#shown) {
      if (wanted.has(key)) continue;
      item.remove();
      this.#shown.delete(key);
    }
  }
}

function parts(fault: FaultText): HTMLElement[] {
  const head = make('p', 'head');
  head.append(make('span', 'code', fault.code === '' ? fault.kind : `${fault.kind} ${fault.code}`), make('span', 'when', when(fault)));
  const message = make('p', 'message', fault.message);
  return fault.remedy === '' ? [head, message] : [head, message, make('p', 'remedy', fault.remedy)];
}

function when({ timeS, atMs, count }: FaultText): string {
  const often = count > 1 ? `, ${count} times` : '';
  return `${new Date(atMs).toLocaleTimeString()} (robot clock ${fixed(timeS, 2)} s${often})`;
}
