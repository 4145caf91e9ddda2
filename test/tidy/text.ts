/**
 * The tidy rules that need no parser: lengths, words and paths that must not be in the tree, the lock file, and the commands that documents name.
 * Every rule is a pure function of file texts, so that tidy.test.ts can show it bad samples; only `listFiles` and `readTree` touch the disk.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Path from the root of the tree -> text. */
export type Tree = ReadonlyMap<string, string>;

export interface Violation {
  readonly file: string;
  /** Counted from 1; absent when the whole file is meant. */
  readonly line?: number;
  readonly message: string;
}

export function show(violation: Violation): string {
  return `${violation.file}${violation.line === undefined ? '' : `:${violation.line}`}: ${violation.message}`;
}

const textExtensions =
  /\.(ts|js|mjs|cpp|cu|cuh|h|c|md|json|gyp|txt|yml|yaml|toml|py|sh|xml|html|css|dbc|proto|service)$|(^|\/)(\.ci\/run|\.[a-z-]+)$/;
const skipped = /^(test\/goldens\/|node_modules\/|dist\/|build\/|\.git\/)|^test\/fuzz\/[^/]*\/|^LICENSE$/;

/** Files of the tree: what git tracks or would track; outside a git checkout, everything but build outputs. */
export function listFiles(root: string): string[] {
  if (existsSync(join(root, '.git'))) {
    const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], { cwd: root, encoding: 'utf8' });
    return [...new Set(listed.split('\0'))].filter((path) => path !== '' && existsSync(join(root, path)));
  }
  const walk = (folder: string): string[] =>
    readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (skipped.test(`${path}/`)) return [];
      return entry.isDirectory() ? walk(path) : [path];
    });
  return walk('');
}

export function readTree(root: string): Tree {
  const paths = listFiles(root).filter((path) => textExtensions.test(path) && !skipped.test(path));
  return new Map(paths.sort().map((path) => [path, readFileSync(join(root, path), 'utf8')]));
}

const isCpp = (path: string): boolean => /\.(cpp|h|c|cu|cuh)$/.test(path);
const isScript = (path: string): boolean => /\.(ts|js|mjs)$/.test(path);

export function lineLengths(tree: Tree): Violation[] {
  const found: Violation[] = [];
  for (const [file, text] of tree) {
    const limit = isCpp(file) ? 120 : isScript(file) ? 150 : undefined;
    if (limit === undefined) continue;
    text.split('\n').forEach((line, index) => {
      const length = [...line].length;
      if (length > limit) found.push({ file, line: index + 1, message: `${length} columns, at most ${limit} are allowed` });
    });
  }
  return found;
}

export function fileLengths(tree: Tree, limit = 500): Violation[] {
  return [...tree]
    .filter(([file]) => isCpp(file) || isScript(file))
    .map(([file, text]) => ({ file, length: text.split('\n').length - 1 }))
    .filter(({ length }) => length > limit)
    .map(({ file, length }) => ({ file, message: `${length} lines, at most ${limit} are allowed` }));
}

// The banned texts are put together from parts, so that this file does not contain them.
const bans: readonly { readonly pattern: RegExp; readonly why: string }[] = [
  {
    pattern: new RegExp(
      ['registry\\.npm' + 'js', 'registry\\.yarn' + 'pkg', 'pypi' + '\\.org', 'python' + 'hosted\\.', 'crates' + '\\.io'].join('|'),
    ),
    why: 'a package registry host: the machine decides where packages come from',
  },
  { pattern: new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX', 'HA' + 'CK'].join('|')})\\b`), why: 'unfinished work belongs in an issue' },
  {
    pattern: new RegExp(`(^|[\\s"'\`=(:])/(${['wo' + 'rk', 'ho' + 'me', 'ro' + 'ot', 'Us' + 'ers'].join('|')})/[\\w.]`),
    why: 'a path of one machine',
  },
];

export function bannedTexts(tree: Tree): Violation[] {
  const found: Violation[] = [];
  for (const [file, text] of tree) {
    if (file === 'package-lock.json') continue;
    text.split('\n').forEach((line, index) => {
      for (const { pattern, why } of bans) {
        const match = pattern.exec(line);
        if (match) found.push({ file, line: index + 1, message: `"${match[0].trim()}": ${why}` });
      }
    });
  }
  return found;
}

/** A lock file with addresses would tie every machine to one registry. */
export function lockFile(text: string): Violation[] {
  const file = 'package-lock.json';
  return text.split('\n').flatMap((line, index) => (/"resolved"\s*:/.test(line) ? [{ file, line: index + 1, message: 'a resolved address' }] : []));
}

/** Each `npm run NAME` of a document must be a script. */
export function documentedScripts(tree: Tree, scripts: Readonly<Record<string, string>>): Violation[] {
  const found: Violation[] = [];
  for (const [file, text] of tree) {
    if (!/\.(md|ts|mjs|js)$/.test(file) || file.startsWith('test/tidy')) continue;
    for (const match of text.matchAll(/\bnpm run (?:-s )?([a-z][a-z:-]*[a-z])/g)) {
      const name = match[1] ?? '';
      if (!Object.hasOwn(scripts, name)) {
        found.push({ file, line: text.slice(0, match.index).split('\n').length, message: `"npm run ${name}" is not in package.json` });
      }
    }
  }
  return found;
}

/** The first lines of a source say its job; a .cpp file with its own header beside it need not repeat it. */
export function headers(tree: Tree): Violation[] {
  const charactersMin = 40;
  const found: Violation[] = [];
  for (const [file, text] of tree) {
    const isTypeScript = /^(src|bench)\/.*\.ts$/.test(file) || /^(setup|deploy)\/.*\.mjs$/.test(file);
    if (!isTypeScript && !(isCpp(file) && /^(cpp|cuda|protocol|firmware-bridge)\//.test(file))) continue;
    if (file.endsWith('.cpp') && tree.has(file.replace(/\.cpp$/, '.h'))) continue;
    const comment = isTypeScript ? /^\/\*\*([\s\S]*?)\*\//.exec(text)?.[1] : /^((?:\/\/.*\n)+)|^\/\*([\s\S]*?)\*\//.exec(text)?.[0];
    const words = (comment ?? '').replace(/[*/\s]+/g, ' ').trim();
    if (words.length < charactersMin) found.push({ file, line: 1, message: 'does not open with a paragraph that says its job' });
  }
  return found;
}
