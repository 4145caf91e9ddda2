import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { cleanPrompt, findMojibake, PROMPT_LENGTH_MAX } from '../../src/text/clean.js';
import { cases, goldens, resetCalls } from './goldens.js';

t.test('the golden prompts', async (t) => {
  const units = JSON.parse(readFileSync(join(goldens, 'units', 'tokenizer.json'), 'utf8')) as { case: string; raw: string; cleaned: string }[];
  t.ok(units.length > 20);
  for (const { raw, cleaned } of units) t.equal(cleanPrompt(raw), cleaned, JSON.stringify(raw.slice(0, 60)));
  for (const name of cases) {
    for (const call of resetCalls(name)) t.equal(cleanPrompt(call.prompt), call.cleaned_prompt_pos, `${name} ${call.prefix}`);
  }
});

// Expected values: ftfy 6.3.1 and Python 3.11's html module, in the reference's order (docs/TEXT.md, "How it was checked").
const expected: [string, string, string][] = [
  ['&#128;&#x93;quoted&#148;', '€"quoted"', 'numbers of C1 controls mean Windows-1252 characters'],
  ['&#0;&#xD800;&#x110000;', '\ufffd\ufffd\ufffd', 'impossible numbers become U+FFFD'],
  ['a&#1;&#x7f;&#xfdd0;&#65535;b', 'ab', 'numbers of non-characters become nothing'],
  ['this&not that &notit; &notin;', 'this¬ that ¬it; ∉', 'names without a semicolon decode by longest match'],
  ['P&EACUTE;REZ BUNDESSTRA&SZLIG;E &nTILDE;', 'PÉREZ BUNDESSTRASSE &nTILDE;', 'names in capitals'],
  ['&amp;amp;amp;amp;lt;', '<', 'ftfy decodes to the end'],
  ['< &amp;amp;amp;lt;', '< &amp;lt;', 'a literal < leaves two passes only'],
  ['&amp;amp;amp;lt;\n< \n&amp;amp;amp;lt;', '< < &amp;lt;', 'which holds from its line on'],
  ['&#38;#38;#65;', 'A', 'a reference that makes a reference'],
  ['ŉ ĳ ﬀ ﬅ ǅ', "'n ij ff ſt Dž", 'Latin ligatures'],
  ['ＬＯＵＤ　Ｕﾀｰﾝ ￣', 'LOUD Uターン ̄', 'halfwidth and fullwidth forms'],
  ['‘a’ ‚b‛ “c” „d‟ ʼe', `'a' 'b' "c" "d" 'e`, 'curly quotes'],
  ['\x1b[1;31mred\x1b[0m \x1b[x', 'red', 'terminal escapes'],
  ['a\x00b\x0bc\x1fd\x7fe\u206af\ufeffg\ufffch', 'abcdefgh', 'control characters'],
  ['a\x85b\x80c\x81d', 'a…b€c\x81d', 'C1 controls are Windows-1252, unassigned ones stay'],
  ['a\r\nb\rc\u2028d\u2029e', 'a b c d e', 'line breaks'],
  ['e\u0301 \u212b \u2126', 'é Å Ω', 'normalisation'],
  ['\u200ba\u200b \u180eb', '\u200ba\u200b \u180eb', 'these are no whitespace'],
  ['\u1680\u2000a\u202f\u205f\xa0\tb\f\u3000', 'a b', 'these are'],
  ['a\ud83db', 'a\ufffdb', 'a lone surrogate'],
  ['\ud83d\ude42', '🙂', 'a pair is a character'],
  ['&lt;&gt;&#59;&#10;x', '<>; x', 'an entity that makes a semicolon or a line break'],
];
t.test('corner cases', async (t) => {
  for (const [raw, cleaned, name] of expected) t.equal(cleanPrompt(raw), cleaned, name);
});

t.test('cleaning twice changes nothing for plain instructions', async (t) => {
  for (const raw of ['Pick up the  red cube', '日本語 テスト', 'naïve café', 'don’t']) t.equal(cleanPrompt(cleanPrompt(raw)), cleanPrompt(raw));
});

t.test('what is no prompt', async (t) => {
  t.throws(() => cleanPrompt(undefined as unknown as string), { code: 'TEXT_INVALID', found: 'undefined' });
  t.throws(() => cleanPrompt('x'.repeat(PROMPT_LENGTH_MAX + 1)), { code: 'TEXT_INVALID' });
  t.equal(cleanPrompt('x'.repeat(PROMPT_LENGTH_MAX)).length, PROMPT_LENGTH_MAX);
});

t.test('mojibake is found and left alone', async (t) => {
  for (const [text, piece] of [
    ['don\u00e2\u20ac\u2122t', '\u00e2\u20ac\u2122'],
    ['caf\u00c3\u00a9', '\u00c3\u00a9'],
    ['\u00f0\u0178\u2122\u201a', '\u00f0\u0178\u2122\u201a'],
  ] as const) {
    t.equal(findMojibake(text), piece);
    t.not(cleanPrompt(text), '', 'it still cleans');
  }
  for (const text of ['', 'café', '25 °C ± 2', 'Ångström', '日本語', 'naïve “quotes” — dash…', '🙂']) t.equal(findMojibake(text), null, text);
});
