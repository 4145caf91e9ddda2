/** The colours of the page: every text has the contrast of WCAG 2.2 AA (4.5) on what it stands on, and what must be seen without words that of 3. */
import { readFileSync } from 'node:fs';
import t from 'tap';

const css = readFileSync(new URL('../../src/dashboard/page/theme.css', import.meta.url), 'utf8');

function themeOf(selector: string): ReadonlyMap<string, string> {
  const [, block = ''] = new RegExp(`^${selector.replace(/[[\]]/g, '\\$&')} \\{([^}]*)\\}`, 'm').exec(css) ?? [];
  return new Map([...block.matchAll(/--([\w-]+): (#[0-9a-f]{6,8});/g)].map(([, name = '', value = '']) => [name, value]));
}

/** WCAG 2.2, "relative luminance", of #rrggbb. */
function luminance(colour: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const value = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(a: string, b: string): number {
  const [dark = 0, light = 0] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}

/** Text, and what it stands on. */
const TEXTS: readonly (readonly [string, readonly string[]])[] = [
  ['panel', ['ink', 'muted', 'ok', 'warn', 'late', 'setpoint', 'measured']],
  ['back', ['ink', 'muted', 'late']],
  ['fault-back', ['ink', 'muted', 'late']],
  ['warn-back', ['ink', 'muted', 'late', 'warn']],
  ['compute', ['on-fill']],
  ['execute', ['on-fill']],
];
const SHAPES = ['compute', 'execute', 'late', 'setpoint', 'measured', 'focus'];

t.test('the formula: black on white, and the grey that just passes', async (t) => {
  t.equal(contrast('#000000', '#ffffff'), 21);
  t.ok(contrast('#767676', '#ffffff') >= 4.5 && contrast('#777777', '#ffffff') < 4.5);
});

for (const [name, selector] of [
  ['light', ':root'],
  ['dark', ':root[data-theme="dark"]'],
] as const) {
  t.test(name, async (t) => {
    const theme = themeOf(selector);
    const of = (colour: string): string => theme.get(colour) ?? '';
    t.ok(theme.size > 20, `${theme.size} colours`);
    for (const [ground, texts] of TEXTS) {
      for (const text of texts) {
        const found = contrast(of(text), of(ground));
        t.ok(found >= 4.5, `${text} on ${ground}: ${found.toFixed(2)}`);
      }
    }
    for (const ground of ['stop', 'stop-press']) t.ok(contrast('#ffffff', of(ground)) >= 4.5, `white on ${ground}`);
    for (const shape of SHAPES) t.ok(contrast(of(shape), of('panel')) >= 3, shape);
  });
}
