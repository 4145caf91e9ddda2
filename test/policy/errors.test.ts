/** The table of docs/ERRORS.md has every code that the sources can report, and no other. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { PremotorError } from '../../src/errors.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** Literals of several words look like codes wherever they stand; those of one word count where an error is made. */
const severalWords = /(["'])([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\1/g;
const oneWord = /(?:PremotorError|Status::error|problem|checkpoint_error)\(\s*["']([A-Z][A-Z0-9]+)["']/g;
const fallback = /:\s*'(INTERNAL)'/g;
/** Not errors: environment variables, dtype names of the safetensors format, and types of Parquet. */
const otherLiterals = /^(PREMOTOR|XDG|NODE|CUDA|SOURCE)_|^(NOTIFY_SOCKET|WATCHDOG_USEC|WATCHDOG_PID|STATE_DIRECTORY)$|^F8_|^BYTE_ARRAY$/;

function codesIn(source: string): string[] {
  const found = [...source.matchAll(severalWords)].map(([, , code]) => code as string);
  for (const pattern of [oneWord, fallback]) found.push(...[...source.matchAll(pattern)].map(([, code]) => code as string));
  return found.filter((code) => !otherLiterals.test(code));
}

function sourceCodes(): Map<string, string> {
  const codes = new Map<string, string>();
  for (const folder of ['src', 'cpp', 'cuda']) {
    let names: string[] = [];
    try {
      names = readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    for (const name of names.filter((one) => /\.(ts|h|cpp|cu|cuh)$/.test(one))) {
      for (const code of codesIn(readFileSync(join(root, folder, name), 'utf8'))) codes.set(code, `${folder}/${name}`);
    }
  }
  return codes;
}

const table = readFileSync(join(root, 'docs', 'ERRORS.md'), 'utf8');
const rows = [...table.matchAll(/^\| `([A-Z0-9_]+)` \| ([^|]+) \| ([^|]+) \|$/gm)].map(([, code, meaning, remedy]) => ({ code, meaning, remedy }));

t.test('codes are found in sources', (t) => {
  t.same(
    codesIn(`throw new PremotorError('BUSY', m); Status::error("ABORTED", m); return wrong("FRAME_INVALID"); getenv("PREMOTOR_ISA"); 'F8_E4M3'`),
    ['FRAME_INVALID', 'BUSY', 'ABORTED'],
  );
  t.same(codesIn(`const code = known ? e.code : 'INTERNAL';`), ['INTERNAL']);
  const found = sourceCodes();
  for (const code of ['BUSY', 'CLOSED', 'ABORTED', 'INTERNAL', 'JOB_INVALID', 'CHECKPOINT_SHAPE', 'ENGINE_DIED']) t.ok(found.has(code), code);
  t.end();
});

t.test('every code is in the table', (t) => {
  const listed = new Set(rows.map(({ code }) => code));
  for (const [code, file] of sourceCodes()) t.ok(listed.has(code), `${code} of ${file}`);
  t.end();
});

t.test('the table has no other code, and none twice', (t) => {
  const found = sourceCodes();
  for (const { code } of rows) t.ok(found.has(code as string), `${code} is reported somewhere`);
  t.equal(new Set(rows.map(({ code }) => code)).size, rows.length);
  t.equal(rows.length, [...table.matchAll(/^\| `[A-Z]/gm)].length, 'every row has a meaning and a remedy');
  t.end();
});

t.test('the error type', (t) => {
  const cause = new Error('why');
  const error = new PremotorError('BUSY', 'message', { field: 'f', file: 'a', tensor: 'w', expected: 'e', found: 'x', cause });
  t.match(error, { name: 'PremotorError', code: 'BUSY', message: 'message', field: 'f', file: 'a', tensor: 'w', expected: 'e', found: 'x' });
  t.equal(error.cause, cause);
  t.ok(error instanceof Error);
  t.notOk('cause' in new PremotorError('BUSY', 'm'));
  t.end();
});
