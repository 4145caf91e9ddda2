/** Small helpers over the document that every part of the status page uses. They know no robot. */

/** An element of index.html; that it is there is what index.html is for. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no element "${id}"`);
  return found as T;
}

export function make(tag: string, className = '', text = ''): HTMLElement {
  const element = document.createElement(tag);
  if (className !== '') element.className = className;
  if (text !== '') element.textContent = text;
  return element;
}

/** Writes only what is new, so that readers of screens and of layouts are not woken for nothing. */
export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

export interface Pair {
  readonly name: string;
  readonly value: string;
  readonly mood?: 'good' | 'bad';
  /** A line above. */
  readonly rule?: boolean;
}

/** Fills a list of names and values. Rows that stay are kept. */
export function setPairs(list: HTMLElement, pairs: readonly Pair[]): void {
  while (list.children.length > pairs.length) list.lastElementChild?.remove();
  pairs.forEach(({ name, value, mood, rule }, index) => {
    let row: Element | undefined = list.children[index];
    if (row?.children.length !== 2) {
      row?.remove();
      row = make('div');
      row.append(make('dt'), make('dd'));
      list.insertBefore(row, list.children[index] ?? null);
    }
    const [dt, dd] = [...row.children] as HTMLElement[];
    row.className = rule ? 'rule' : '';
    if (dt) setText(dt, name);
    if (!dd) return;
    setText(dd, value);
    dd.className = mood ?? '';
  });
}

/** "-0.123": a sign's width is kept free. */
export function fixed(value: number | null | undefined, digits: number): string {
  return value === null || value === undefined || !Number.isFinite(value) ? '-' : value.toFixed(digits);
}

/** Milliseconds with as many digits as they deserve. */
export function ms(value: number | null | undefined): string {
  return fixed(value, value !== null && value !== undefined && Math.abs(value) < 10 ? 1 : 0);
}
