/**
 * The tidy rules for TypeScript, on the compiler's syntax tree: the import graph, the one door to the addon, function lengths, `any`, default
 * exports, timers, files that nothing imports.
 */
import { dirname, join, normalize } from 'node:path/posix';
import ts from 'typescript';
import type { Tree, Violation } from './text.js';

const parsed = new WeakMap<Tree, Map<string, ts.SourceFile>>();

/** The syntax trees of a tree's scripts, parsed once. */
function sources(tree: Tree, pattern: RegExp): [string, ts.SourceFile][] {
  let files = parsed.get(tree);
  if (!files) {
    files = new Map();
    parsed.set(tree, files);
  }
  const result: [string, ts.SourceFile][] = [];
  for (const [file, text] of tree) {
    if (!pattern.test(file)) continue;
    const source = files.get(file) ?? ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true);
    files.set(file, source);
    result.push([file, source]);
  }
  return result;
}

const inSrc = /^src\/.*\.ts$/;
const anywhere = /^(src|test|bench|setup|bin)\/.*\.(ts|mjs|js)$/;

function visit(node: ts.Node, see: (node: ts.Node) => void): void {
  see(node);
  ts.forEachChild(node, (child) => visit(child, see));
}

function lineOf(source: ts.SourceFile, node: ts.Node): number {
  return source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1;
}

interface Import {
  readonly line: number;
  readonly specifier: string;
}

/** Static imports, re-exports, import() and import types. */
function importsOf(source: ts.SourceFile): Import[] {
  const found: Import[] = [];
  visit(source, (node) => {
    let literal: ts.Node | undefined;
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) literal = node.moduleSpecifier;
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) literal = node.arguments[0];
    else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) literal = node.argument.literal;
    if (literal && ts.isStringLiteral(literal)) found.push({ line: lineOf(source, node), specifier: literal.text });
  });
  return found;
}

/** The source behind a relative import of compiled JavaScript. */
function resolve(file: string, specifier: string): string {
  return normalize(join(dirname(file), specifier)).replace(/\.js$/, '.ts');
}

const folderOf = (file: string): string => (file.split('/').length > 2 ? (file.split('/')[1] ?? '') : '');

/** Folder of src -> folders that it must not know; the command line is known to nobody. */
const mustNotImport: Readonly<Record<string, readonly string[]>> = {
  policy: ['sim', 'control', 'robot', 'cameras', 'server', 'dashboard', 'telemetry', 'recording', 'runtime'],
  config: ['sim', 'control', 'policy', 'server', 'dashboard'],
  control: ['sim', 'dashboard', 'server', 'telemetry', 'runtime', 'tap'],
  cameras: ['dashboard', 'server', 'telemetry', 'runtime'],
  // What watches the robot knows the tap and nothing that moves it.
  tap: ['sim', 'runtime', 'server', 'dashboard', 'telemetry', 'recording'],
  telemetry: ['sim', 'runtime', 'server', 'dashboard', 'recording'],
  recording: ['runtime', 'server', 'dashboard', 'telemetry'],
  dashboard: ['sim', 'runtime', 'server', 'telemetry'],
  server: ['runtime', 'dashboard', 'telemetry'],
  sim: ['dashboard', 'server', 'telemetry', 'runtime'],
  journal: ['sim', 'control', 'robot', 'cameras', 'config', 'runtime', 'server', 'dashboard', 'telemetry', 'recording'],
  replay: ['sim', 'control', 'robot', 'cameras', 'config', 'runtime', 'server', 'dashboard', 'telemetry', 'recording'],
};

export function importRules(tree: Tree, dependencies: readonly string[]): Violation[] {
  const found: Violation[] = [];
  for (const [file, source] of sources(tree, inSrc)) {
    for (const { line, specifier } of importsOf(source)) {
      const message = specifier.startsWith('.') ? relativeProblem(tree, file, specifier) : packageProblem(specifier, dependencies);
      if (message !== undefined) found.push({ file, line, message });
    }
  }
  return found;
}

function relativeProblem(tree: Tree, file: string, specifier: string): string | undefined {
  const target = resolve(file, specifier);
  if (!target.startsWith('src/')) return `imports ${target}: src stands on itself and its dependencies`;
  if (!specifier.endsWith('.js')) return `"${specifier}" does not end in .js`;
  if (!tree.has(target)) return `"${specifier}" does not exist`;
  const [from, to] = [folderOf(file), folderOf(target)];
  if (to === 'cli' && from !== 'cli') return 'imports the command line, which nothing may know';
  return mustNotImport[from]?.includes(to) ? `src/${from} imports src/${to}, which it must not know` : undefined;
}

function packageProblem(specifier: string, dependencies: readonly string[]): string | undefined {
  if (specifier.startsWith('node:')) return undefined;
  const name = specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
  return dependencies.includes(name) ? undefined : `"${name}" is not in package.json's dependencies`;
}

/** Only native.ts may load a binary. */
export function addonDoor(tree: Tree): Violation[] {
  const found: Violation[] = [];
  for (const [file, source] of sources(tree, inSrc)) {
    if (file === 'src/native.ts') continue;
    visit(source, (node) => {
      const isLoader = ts.isIdentifier(node) && (node.text === 'createRequire' || node.text === 'dlopen');
      const isBinary = ts.isStringLiteralLike(node) && /\.node$/.test(node.text);
      if (isLoader || isBinary)
        found.push({ file, line: lineOf(source, node), message: `${node.getText(source)}: src/native.ts alone loads the addon` });
    });
  }
  return found;
}

export function typeRules(tree: Tree): Violation[] {
  const found: Violation[] = [];
  for (const [file, source] of sources(tree, anywhere)) {
    visit(source, (node) => {
      if (node.kind === ts.SyntaxKind.AnyKeyword) found.push({ file, line: lineOf(source, node), message: '`any`: use unknown and narrow it' });
      const isDefault = ts.isExportAssignment(node) || (node.kind === ts.SyntaxKind.DefaultKeyword && !ts.isDefaultClause(node.parent));
      if (isDefault && inSrc.test(file)) found.push({ file, line: lineOf(source, node), message: 'a default export: name it' });
      const isPrivate = node.kind === ts.SyntaxKind.PrivateKeyword && !ts.isConstructorDeclaration(node.parent);
      if (isPrivate && inSrc.test(file)) found.push({ file, line: lineOf(source, node), message: '`private`: use a #name' });
    });
  }
  return found;
}

const timers = new Set(['setTimeout', 'setInterval', 'sleep', 'delay']);

/** A timer in a loop is polling; a timer with a bare number has a bound without a name. */
export function timerRules(tree: Tree): Violation[] {
  const found: Violation[] = [];
  for (const [file, source] of sources(tree, inSrc)) {
    visit(source, (node) => {
      if (!ts.isCallExpression(node) || !ts.isIdentifier(node.expression) || !timers.has(node.expression.text)) return;
      const line = lineOf(source, node);
      const isBareNumber = node.arguments.some((argument) => ts.isNumericLiteral(argument) && argument.text !== '0');
      if (isBareNumber) found.push({ file, line, message: 'a timer with a bare number: name the bound, with its unit' });
      if (isInLoop(node)) found.push({ file, line, message: 'a timer in a loop: wait for the event instead of polling' });
    });
  }
  return found;
}

/** Is the node run by a loop? A promise's executor belongs to the code around it; any other function ends the search. */
function isInLoop(node: ts.Node): boolean {
  for (let at: ts.Node | undefined = node.parent; at; at = at.parent) {
    if (ts.isWhileStatement(at) || ts.isDoStatement(at) || ts.isForStatement(at) || ts.isForOfStatement(at)) return true;
    if (ts.isFunctionLike(at) && !(at.parent && ts.isNewExpression(at.parent))) return false;
  }
  return false;
}

export function functionLengths(tree: Tree, limit = 70): Violation[] {
  const found: Violation[] = [];
  for (const [file, source] of sources(tree, anywhere)) {
    visit(source, (node) => {
      if (!ts.isFunctionLike(node) || !('body' in node) || node.body === undefined) return;
      const line = lineOf(source, node);
      const lines = source.getLineAndCharacterOfPosition(node.getEnd()).line + 2 - line;
      const name = node.name?.getText(source) ?? 'function';
      if (lines > limit) found.push({ file, line, message: `${name} has ${lines} lines, at most ${limit} are allowed` });
    });
  }
  return found;
}

/**
 * Sources that no entry point reaches. A string that names a .js file counts as an import, because a child process is started by its path.
 */
export function deadFiles(tree: Tree, entries: readonly string[]): Violation[] {
  const files = new Map(sources(tree, inSrc));
  const reached = new Set<string>();
  const queue = entries.filter((entry) => files.has(entry));
  for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
    const source = files.get(file);
    if (reached.has(file) || !source) continue;
    reached.add(file);
    visit(source, (node) => {
      if (ts.isStringLiteralLike(node) && /\.(js|ts)$/.test(node.text)) queue.push(resolve(file as string, node.text));
    });
  }
  return [...files.keys()].filter((file) => !reached.has(file)).map((file) => ({ file, message: 'nothing imports it and it is no entry point' }));
}

interface Manifest {
  readonly exports: Readonly<Record<string, string | Readonly<Record<string, string>>>>;
  readonly bin: Readonly<Record<string, string>>;
}

/** What package.json promises must exist: compiled files as their sources, the others as they are. */
export function packageExports(tree: Tree, manifest: Manifest): Violation[] {
  const promised = [
    ...Object.values(manifest.exports).flatMap((entry) => (typeof entry === 'string' ? [entry] : Object.values(entry))),
    ...Object.values(manifest.bin),
  ];
  return promised.flatMap((path) => {
    const file = normalize(path).replace(/^dist\/(.*?)(\.d\.ts|\.js)$/, 'src/$1.ts');
    return tree.has(file) ? [] : [{ file: 'package.json', message: `promises ${path}, but ${file} does not exist` }];
  });
}
