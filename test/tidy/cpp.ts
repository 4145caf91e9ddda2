/**
 * The tidy rules for C++: who may include whom, what each layer may call, function lengths, headers that nothing includes. Function bodies are found
 * by their braces, which is enough for code that a formatter laid out; a table of data is no function.
 */
import type { Tree, Violation } from './text.js';

/** Layer -> layers whose headers it may include (docs/DESIGN.md). */
const mayInclude: Readonly<Record<string, readonly string[]>> = {
  'cpp/base': ['cpp/base'],
  'cpp/ops': ['cpp/ops', 'cpp/base'],
  'cpp/engine': ['cpp/engine', 'cpp/ops', 'cpp/base'],
  'cpp/stream': ['cpp/stream', 'cpp/base', 'protocol'],
  'cpp/can': ['cpp/can', 'cpp/base', 'protocol'],
  'cpp/kinematics': ['cpp/kinematics', 'cpp/base'],
  'cpp/camera': ['cpp/camera', 'cpp/base'],
  'cpp/motion': ['cpp/motion', 'cpp/stream', 'cpp/kinematics', 'cpp/can', 'cpp/base', 'protocol'],
  'cpp/rig': ['cpp/rig', 'cpp/motion', 'cpp/stream', 'cpp/kinematics', 'cpp/can', 'cpp/base', 'protocol', 'firmware-bridge'],
  'cpp/addon': [
    'cpp/addon',
    'cpp/base',
    'cpp/ops',
    'cpp/engine',
    'cpp/stream',
    'cpp/can',
    'cpp/motion',
    'cpp/rig',
    'cpp/kinematics',
    'cpp/camera',
    'protocol',
  ],
  'cpp/programs': ['cpp/programs', 'cpp/rig', 'cpp/motion', 'cpp/stream', 'cpp/kinematics', 'cpp/can', 'cpp/base', 'protocol'],
  cuda: ['cuda', 'cpp/ops', 'cpp/base'],
  protocol: ['protocol'],
  'firmware-bridge': ['firmware-bridge', 'protocol'],
};

/** Angle-bracket headers that only one layer may use. */
const owned: readonly { readonly pattern: RegExp; readonly layers: readonly string[] }[] = [
  { pattern: /^(napi|node_api|js_native_api|node)(-inl)?\.h$/, layers: ['cpp/addon'] },
  { pattern: /^(cuda|cublas|cudnn|nv|cooperative_groups|cub\/|mma)/, layers: ['cuda'] },
  { pattern: /^ucontext\.h$/, layers: ['cuda'] },
  { pattern: /^(immintrin|cpuid|arm_neon|arm_sve)\.h$/, layers: ['cpp/ops'] },
];
const standard = /^[a-z_]+$|^(sys|linux|net|arpa|netinet)\/[a-z0-9_/]+\.h$/;
const systemHeaders = 'unistd fcntl errno pthread sched signal time poll dlfcn stdint stddef string stdbool math termios'
  .split(' ')
  .map((name) => `${name}.h`);

function layerOf(path: string): string | undefined {
  const [first, second] = path.split('/');
  return first === 'cpp' ? `cpp/${second}` : first;
}

interface Include {
  readonly line: number;
  readonly path: string;
  readonly isQuoted: boolean;
}

export function includesOf(text: string): Include[] {
  return text.split('\n').flatMap((line, index) => {
    const match = /^\s*#\s*include\s*(["<])([^">]+)[">]/.exec(line);
    return match ? [{ line: index + 1, path: match[2] ?? '', isQuoted: match[1] === '"' }] : [];
  });
}

/** Paths in quotes count from cpp/, or from the root for the folders beside it. */
function resolveInclude(include: string): string {
  return /^(cuda|protocol|firmware-bridge)\//.test(include) ? include : `cpp/${include}`;
}

export function includeRules(tree: Tree): Violation[] {
  const found: Violation[] = [];
  for (const [file, text] of tree) {
    const layer = layerOf(file);
    const allowed = layer === undefined ? undefined : mayInclude[layer];
    if (layer === undefined || !/\.(cpp|h|c|cu|cuh)$/.test(file)) continue;
    if (allowed === undefined) {
      if (file.startsWith('cpp/')) found.push({ file, message: `${layer} is no layer of DESIGN.md` });
      continue;
    }
    for (const include of includesOf(text)) {
      const message = include.isQuoted ? quotedProblem(tree, layer, allowed, include.path) : angleProblem(layer, include.path);
      if (message !== undefined) found.push({ file, line: include.line, message });
    }
  }
  return found;
}

function quotedProblem(tree: Tree, layer: string, allowed: readonly string[], include: string): string | undefined {
  const target = resolveInclude(include);
  const targetLayer = layerOf(target) ?? '';
  if (!(targetLayer in mayInclude) || include.startsWith('.')) return `"${include}" is not a path from cpp/`;
  if (!allowed.includes(targetLayer)) return `${layer} includes "${include}", but may use ${allowed.join(', ')} only`;
  return tree.has(target) ? undefined : `"${include}" does not exist`;
}

function angleProblem(layer: string, include: string): string | undefined {
  const owner = owned.find(({ pattern }) => pattern.test(include));
  if (owner) return owner.layers.includes(layer) ? undefined : `<${include}> belongs in ${owner.layers.join(', ')}, not in ${layer}`;
  return standard.test(include) || systemHeaders.includes(include) ? undefined : `<${include}> is not in the standard library`;
}

/** A header that no other source includes is dead; its own .cpp file and the tests do not count. */
export function deadHeaders(tree: Tree): Violation[] {
  const used = new Set<string>();
  for (const [file, text] of tree) {
    if (file.startsWith('test/')) continue;
    for (const include of includesOf(text)) {
      const target = resolveInclude(include.path);
      if (target.replace(/\.h$/, '.cpp') !== file) used.add(target);
    }
  }
  return [...tree.keys()].filter((file) => /^cpp\/.*\.h$/.test(file) && !used.has(file)).map((file) => ({ file, message: 'nothing includes it' }));
}

const forbiddenCalls: readonly { readonly pattern: RegExp; readonly layers: RegExp; readonly why: string }[] = [
  { pattern: /(?<![\w.>:])(?:std::)?(exit|_exit|quick_exit|abort|terminate)\s*\(/, layers: /^(cpp|cuda)\//, why: 'a library never ends the process' },
  {
    pattern: /\b(std::(cout|cerr|clog)|(std::)?f?printf\s*\(|puts\s*\()/,
    layers: /^(cpp(?!\/programs)|cuda)\//,
    why: 'a library does not print: return a Status',
  },
  { pattern: /\busing namespace std\b/, layers: /^(cpp|cuda|test)\//, why: 'names of std are written out' },
  { pattern: /\b(malloc|realloc|free)\s*\(/, layers: /^cpp\//, why: 'memory is owned by an object (RAII)' },
];

export function callRules(tree: Tree): Violation[] {
  const found: Violation[] = [];
  for (const [file, text] of tree) {
    if (!/\.(cpp|h|cu|cuh)$/.test(file)) continue;
    blankCommentsAndStrings(text)
      .split('\n')
      .forEach((line, index) => {
        for (const { pattern, layers, why } of forbiddenCalls) {
          const match = layers.test(file) ? pattern.exec(line) : null;
          if (match) found.push({ file, line: index + 1, message: `"${match[0].trim()}": ${why}` });
        }
      });
  }
  return found;
}

/** The same text with the insides of comments, strings and preprocessor lines blanked, line breaks kept. */
export function blankCommentsAndStrings(text: string): string {
  const blank = (match: string): string => match.replace(/[^\n]/g, ' ');
  return text.replace(
    /\/\/[^\n]*|\/\*[\s\S]*?\*\/|R"(\w*)\([\s\S]*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![\w'])'(?:\\.|[^'\\\n])+'|^[ \t]*#(?:\\\n|[^\n])*/gm,
    blank,
  );
}

interface OpenBracket {
  readonly bracket: string;
  readonly isFunction: boolean;
  readonly headStart: number;
}

/** Is the text before a `{` the head of a function or lambda (and not of a type, a branch or a table)? */
function isFunctionHead(head: string): boolean {
  const text = head.trim().replace(/^(public|private|protected)\s*:\s*/, '');
  if (/(^|[\s(,=&|?:])\[[^\]]*\]\s*(\([\s\S]*\))?\s*(mutable|noexcept|constexpr|->[\s\S]*)*$/.test(text)) return true;
  if (/^(if|for|while|switch|catch|else|do|try|namespace|class|struct|union|enum|extern|return|case|default)\b/.test(text)) return false;
  if (/(^|[^=!<>])=\s*$/.test(text) || /=\s*[\w:<>, ]*$/.test(text)) return false;
  return /\)(\s|const|override|final|mutable|&|noexcept(\([^)]*\))?)*((->|:(?!:)|requires)[\s\S]*)?$/.test(text);
}

export interface FunctionSpan {
  readonly name: string;
  readonly line: number;
  readonly lines: number;
}

/** Every function body of a C++ source, with its length from the first line of its signature to its closing brace. */
export function functionsOf(source: string): FunctionSpan[] {
  const text = blankCommentsAndStrings(source);
  const spans: FunctionSpan[] = [];
  const open: OpenBracket[] = [];
  let headStart = 0;
  const lineAt = (offset: number): number => text.slice(0, offset).split('\n').length;
  for (let at = 0; at < text.length; at += 1) {
    const c = text[at] as string;
    if (c === '(' || c === '{') {
      const head = text.slice(headStart, at);
      open.push({ bracket: c, isFunction: c === '{' && isFunctionHead(head), headStart });
      if (c === '{' || head.trim() === '') headStart = at + 1;
    } else if (c === ')' || c === '}') {
      const opened = open.pop();
      if (c === '}' && opened?.isFunction) {
        const start = opened.headStart + (/\S/.exec(text.slice(opened.headStart))?.index ?? 0);
        const line = lineAt(start);
        spans.push({ name: /([\w:~]+)\s*\(/.exec(text.slice(start, at))?.[1] ?? 'lambda', line, lines: lineAt(at) - line + 1 });
      }
      // A brace in an expression (`member_{1},`) leaves the head going on; after a block a new one begins.
      if (c === '}') headStart = /^\s*[,{().]/.test(text.slice(at + 1, at + 200)) && opened?.isFunction === false ? opened.headStart : at + 1;
    } else if (c === ';' && open.at(-1)?.bracket !== '(') headStart = at + 1;
  }
  return spans;
}

export function functionLengths(tree: Tree, limit = 70): Violation[] {
  const found: Violation[] = [];
  for (const [file, text] of tree) {
    if (!/\.(cpp|h|c|cu|cuh)$/.test(file)) continue;
    for (const { name, line, lines } of functionsOf(text)) {
      if (lines > limit) found.push({ file, line, message: `function ${name} has ${lines} lines, at most ${limit} are allowed` });
    }
  }
  return found;
}
