/**
 * What goes into the package: the part of the tree that runs, and of node_modules the packages that `dependencies` reach, without what only builds,
 * types or documents them. Pure decisions over a folder; it copies nothing and asks nobody. Owned by build.mjs.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Dependencies that compile the addon: a robot gets it compiled. */
const BUILD_ONLY = ['cmake-js', 'node-addon-api', 'node-api-headers'];

/** Files that no program reads: types, source maps, sources, notes. Licences stay. */
const UNREAD = /\.(d\.[cm]?ts|[cm]?ts|tsx|map|md|markdown|flow|html|yml|yaml|tsbuildinfo|gyp|h|hpp|c|cc|cpp)$|(^|\/)(\.[^/]+|[^/]*\.test\.[cm]?js)$/i;
const LICENCE = /(^|\/)(licen[cs]e|notice|copying|copyright)[^/]*$/i;
const UNREAD_FOLDERS = /(^|\/)(test|tests|__tests__|benchmark|benchmarks|bench|example|examples|docs|\.github|fuzz|scripts)\//;

/** Of the tree itself: folder or file -> which of its files. */
const TREE = [
  { from: 'bin', keep: /\.js$/ },
  { from: 'dist', keep: /\.(js|json|html|css|svg|xml|yaml|png|obj|stl)$/ },
  { from: 'package.json', keep: /./ },
  { from: 'protocol', keep: /\.proto$/ },
  // The status page reads ERRORS.md; the others are for whoever stands before the robot without a network.
  { from: 'docs', keep: /^[^/]+\.md$/ },
  { from: 'robots', keep: /\.(yaml|urdf|xml|stl|obj)$/ },
  { from: 'models', keep: /^[^/]+\/(job\.json|model\.onnx|(transformer|vae|text_encoder|tokenizer|certificates)\/.*)$/ },
];

function readJson(path) {
  return JSON.parse(readFileSync(path, 'utf8'));
}

/** Every file below `folder`, as paths from it, sorted by bytes so that no locale decides. Links are reported as they are and not followed. */
export function filesOf(folder) {
  const walk = (below) =>
    readdirSync(join(folder, below), { withFileTypes: true }).flatMap((entry) => {
      const path = below === '' ? entry.name : `${below}/${entry.name}`;
      return entry.isDirectory() ? walk(path) : [path];
    });
  return walk('').sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
}

/** Where Node finds the package `name` that the package in `from` asks for; undefined when it is not installed. */
function resolvePackage(root, from, name) {
  for (let folder = from; ; folder = dirname(folder)) {
    const path = join(folder, 'node_modules', name);
    if (existsSync(join(root, path, 'package.json'))) return path;
    if (folder === '.' || folder === '') return undefined;
  }
}

/**
 * Folders of node_modules that the tree's dependencies reach, sorted. Optional ones that are not here are left out; others are an error, named in
 * `missing`. `native` packages of other systems (os, cpu) are left out: fetch.mjs brings those of the robot's.
 */
export function productionPackages(root) {
  const found = new Set();
  const missing = [];
  const visit = (from, manifest, skip = []) => {
    const optional = manifest.optionalDependencies ?? {};
    for (const name of Object.keys({ ...manifest.dependencies, ...optional })) {
      if (skip.includes(name) || name.startsWith('@types/')) continue;
      const path = resolvePackage(root, from, name);
      if (path === undefined) {
        if (!Object.hasOwn(optional, name)) missing.push(`${name} (asked for by ${from === '' ? 'package.json' : from})`);
        continue;
      }
      const next = readJson(join(root, path, 'package.json'));
      // Packages with an `os` or `cpu` are builds of native code, chosen for the robot elsewhere.
      if (found.has(path) || (next.cpu !== undefined && name.startsWith('@img/'))) continue;
      found.add(path);
      visit(path, next);
    }
  };
  visit('', readJson(join(root, 'package.json')), BUILD_ONLY);
  return { packages: [...found].sort(), missing: missing.sort() };
}

/** True for a file of a package that the running program may read. `path` is from the package's folder; `npmCpu` is npm's name of the processor. */
export function isRead(path, npmCpu) {
  if (LICENCE.test(path)) return true;
  const native = /^bin\/napi-v\d+\/([^/]+)\/([^/]+)\//.exec(path);
  if (native !== null) return native[1] === 'linux' && native[2] === npmCpu;
  return !UNREAD.test(path) && !UNREAD_FOLDERS.test(path);
}

/** Files of the tree and of its packages: path in the tree -> path below usr/lib/premotor, which is the same. */
export function appFiles(root, npmCpu) {
  const { packages, missing } = productionPackages(root);
  const files = [];
  for (const { from, keep } of TREE) {
    const path = join(root, from);
    if (!existsSync(path)) {
      missing.push(from);
      continue;
    }
    if (statSync(path).isFile()) files.push(from);
    else files.push(...filesOf(path).flatMap((file) => (keep.test(file) ? [`${from}/${file}`] : [])));
  }
  for (const folder of packages) {
    for (const file of filesOf(join(root, folder))) {
      // A package inside a package is a package of its own in the list.
      if (!file.startsWith('node_modules/') && isRead(file, npmCpu)) files.push(`${folder}/${file}`);
    }
  }
  return { files, packages, missing };
}
