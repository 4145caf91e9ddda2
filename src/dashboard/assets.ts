/**
 * The files of the status page: a fixed list, read when they are first asked for, and nothing else. The page's modules are compiled beside this file;
 * uPlot comes from its package. Owned by the server.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const SCRIPT = 'text/javascript; charset=utf-8';
const STYLE = 'text/css; charset=utf-8';

/** Path in the address -> file in the page's folder. */
const FILES: Readonly<Record<string, { readonly file: string; readonly type: string }>> = {
  '/': { file: 'index.html', type: 'text/html; charset=utf-8' },
  '/theme.css': { file: 'theme.css', type: STYLE },
  '/style.css': { file: 'style.css', type: STYLE },
  '/panels.css': { file: 'panels.css', type: STYLE },
  '/icon.svg': { file: 'icon.svg', type: 'image/svg+xml' },
  '/page/main.js': { file: './page/main.js', type: SCRIPT },
  '/page/cameras.js': { file: './page/cameras.js', type: SCRIPT },
  '/page/dom.js': { file: './page/dom.js', type: SCRIPT },
  '/page/faults.js': { file: './page/faults.js', type: SCRIPT },
  '/page/figures.js': { file: './page/figures.js', type: SCRIPT },
  '/page/joints.js': { file: './page/joints.js', type: SCRIPT },
  '/page/link.js': { file: './page/link.js', type: SCRIPT },
  '/page/stop.js': { file: './page/stop.js', type: SCRIPT },
  '/page/theme.js': { file: './page/theme.js', type: SCRIPT },
  '/page/timeline.js': { file: './page/timeline.js', type: SCRIPT },
};

const PACKAGES: Readonly<Record<string, { readonly specifier: string; readonly type: string }>> = {
  '/uplot.js': { specifier: 'uplot/dist/uPlot.iife.min.js', type: SCRIPT },
  '/uplot.css': { specifier: 'uplot/dist/uPlot.min.css', type: STYLE },
};

export interface Asset {
  readonly body: Buffer;
  readonly type: string;
}

/** What every page of ours may load: its own origin's files, and no code or style that stands in a document. */
export const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

export class Assets {
  readonly #dir: string;
  readonly #read = new Map<string, Asset>();

  /** `dir`: where the compiled page is. Default: beside this file. */
  constructor(dir = fileURLToPath(new URL('./page/', import.meta.url))) {
    this.#dir = dir;
  }

  static get paths(): readonly string[] {
    return [...Object.keys(FILES), ...Object.keys(PACKAGES)];
  }

  /** undefined: there is no such file. Throws when one of ours is missing: the page was not built. */
  get(path: string): Asset | undefined {
    const known = this.#read.get(path);
    if (known) return known;
    const where = this.#locate(path);
    if (!where) return undefined;
    const asset = { body: readFileSync(where.file), type: where.type };
    this.#read.set(path, asset);
    return asset;
  }

  #locate(path: string): { readonly file: string; readonly type: string } | undefined {
    if (Object.hasOwn(FILES, path)) {
      const { file, type } = FILES[path] as (typeof FILES)[string];
      return { file: join(this.#dir, file.replace('./page/', '')), type };
    }
    if (!Object.hasOwn(PACKAGES, path)) return undefined;
    const { specifier, type } = PACKAGES[path] as (typeof PACKAGES)[string];
    return { file: fileURLToPath(import.meta.resolve(specifier)), type };
  }

  /** Whether the page was compiled. */
  get isBuilt(): boolean {
    return existsSync(join(this.#dir, 'main.js'));
  }
}
