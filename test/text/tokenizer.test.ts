import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { cleanPrompt } from '../../src/text/clean.js';
import { padTokens, TEXT_TOKENS_MAX, TextTokenizer } from '../../src/text/tokenizer.js';
import { cases, goldens, resetCalls, traceBytes, traceInts } from './goldens.js';

const folderOf = (name: string): string => join(goldens, name, 'checkpoint', 'tokenizer');

t.test('golden token ids', async (t) => {
  const units = JSON.parse(readFileSync(join(goldens, 'units', 'tokenizer.json'), 'utf8')) as { case: string; cleaned: string; ids: number[] }[];
  const open = new Map<string, TextTokenizer>();
  for (const { case: name, cleaned, ids } of units) {
    const tokenizer = open.get(name) ?? (await TextTokenizer.open(folderOf(name)));
    open.set(name, tokenizer);
    t.same([...tokenizer.encode(cleaned)], ids, `${name} ${JSON.stringify(cleaned.slice(0, 50))}`);
  }
  t.ok(open.size >= 2, 'more than one kind of tokenizer');
});

t.test('golden padded ids and masks of every reset', async (t) => {
  for (const name of cases) {
    const tokenizer = await TextTokenizer.open(folderOf(name));
    for (const call of resetCalls(name)) {
      const prompts = call.cleaned_prompt_neg === undefined ? { pos: call.prompt } : { pos: call.prompt, neg: '' };
      for (const [row, prompt] of Object.entries(prompts)) {
        const padded = padTokens(tokenizer.encode(cleanPrompt(prompt)));
        t.same([...padded.ids], traceInts(name, `${call.prefix}.token_ids_${row}`), `${name} ${call.prefix} ids ${row}`);
        const mask = traceBytes(name, `${call.prefix}.token_mask_${row}`);
        const isWide = mask.length === 4 * TEXT_TOKENS_MAX;
        const found = Array.from(padded.mask, (_, i) => (isWide ? mask.readInt32LE(4 * i) : mask[i]));
        t.same([...padded.mask], found, `${name} ${call.prefix} mask ${row}`);
      }
    }
  }
});

t.test('a long prompt is cut and keeps its closing </s>', async (t) => {
  const tokenizer = await TextTokenizer.open(folderOf('franka_tiny'));
  const [the, end] = tokenizer.encode('the');
  for (const words of [510, 511, 512, 513, 5000]) {
    const ids = tokenizer.encode(Array(words).fill('the').join(' '));
    t.equal(ids.length, Math.min(words + 1, TEXT_TOKENS_MAX), `${words} words`);
    t.equal(ids.at(-1), end);
    t.equal(ids.at(-2), the);
  }
});

t.test('missing and broken files', async (t) => {
  const folder = t.testdir({});
  const good = folderOf('franka_tiny');
  await t.rejects(TextTokenizer.open(folder), { code: 'TEXT_TOKENIZER', file: join(folder, 'tokenizer.json') }, 'no files');
  const broken: Record<string, string> = {
    'not JSON': '{',
    'no object': '[1]',
    'no model': '{}',
    'an unknown model': '{"model": {"type": "Nonsense", "vocab": []}}',
    empty: '',
  };
  for (const [name, content] of Object.entries(broken)) {
    const copy = join(folder, name.replaceAll(' ', '-'));
    mkdirSync(copy);
    cpSync(join(good, 'tokenizer_config.json'), join(copy, 'tokenizer_config.json'));
    writeFileSync(join(copy, 'tokenizer.json'), content);
    await t.rejects(TextTokenizer.open(copy), { code: 'TEXT_TOKENIZER', file: join(copy, 'tokenizer.json') }, name);
  }
  const copy = join(folder, 'good');
  cpSync(good, copy, { recursive: true });
  await t.resolves(TextTokenizer.open(copy), 'a whole copy opens');
  rmSync(join(copy, 'tokenizer_config.json'));
  await t.rejects(
    TextTokenizer.open(copy),
    { code: 'TEXT_TOKENIZER', file: join(copy, 'tokenizer_config.json') },
    'and no longer without its config',
  );
});

t.test('a tokenizer without post-processor is refused, because prompts would lose their </s>', async (t) => {
  const folder = t.testdir({});
  cpSync(folderOf('franka_tiny'), folder, { recursive: true });
  const path = join(folder, 'tokenizer.json');
  const definition = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  rmSync(path, { force: true });
  writeFileSync(path, JSON.stringify({ ...definition, post_processor: null }));
  await t.rejects(TextTokenizer.open(folder), { code: 'TEXT_TOKENIZER' });
});
