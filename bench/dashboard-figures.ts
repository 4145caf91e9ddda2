/**
 * Draws docs/figures/dashboard-light.png, dashboard-dark.png and dashboard-phone.png: the status page of real episodes of the shipped checkpoint, as
 * a headless Chromium shows it. Needs the Debian package chromium. Usage: npx tsx bench/dashboard-figures.ts
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import sharp from 'sharp';
import type { Chunk, Policy, PredictNextOptions, PredictOptions, ResetOptions, ResetResult } from '../src/policy/contract.js';
import { loadPolicy } from '../src/policy/load.js';
import { YieldingPolicy } from '../src/policy/yielding.js';
import { Gate, type StageHost, stage } from '../test/dashboard/stage.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const figures = join(root, 'docs', 'figures');
const BYTES_MAX = 300 * 1024;
/** Time of the pictures and of the last tick to arrive. */
const SETTLE_MS = 1500;

/** The shipped policy, which waits for the viewer before it begins, and after so many predictions. */
class GatedPolicy extends YieldingPolicy {
  readonly gate = new Gate();

  constructor(inner: Policy) {
    super(inner, { isPatient: true });
  }

  override async reset(options: ResetOptions): Promise<ResetResult> {
    await this.gate.pass(options.signal);
    return super.reset(options);
  }

  override async predict(options: PredictOptions = {}): Promise<Chunk> {
    await this.gate.pass(options.signal);
    return super.predict(options);
  }

  override async predictNext(options: PredictNextOptions): Promise<Chunk> {
    await this.gate.pass(options.signal);
    return super.predictNext(options);
  }
}

/** Runs so many chunks in front of the viewer, then takes its pictures. */
async function draw(browser: Browser, chunks: number, change: Readonly<Record<string, unknown>>, shots: readonly Shot[]): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'premotor-page-'));
  const endings: (() => unknown)[] = [];
  const host: StageHost = { testdir: () => dir, teardown: (end) => void endings.push(end as () => unknown) };
  const policy = new GatedPolicy(await loadPolicy({ checkpoint: join(root, 'models/tabletop'), job: join(root, 'models/tabletop/job.json') }));
  try {
    const { url } = await stage(host, { policy, change });
    const pages = await Promise.all(shots.map((shot) => open(browser, url, shot)));
    policy.gate.open(1 + chunks);
    await pages[0]?.locator('#chunks', { hasText: new RegExp(`^${chunks} of`) }).waitFor();
    for (const [index, page] of pages.entries()) {
      await page.waitForTimeout(SETTLE_MS);
      await keep(await page.screenshot({ fullPage: shots[index]?.isWhole ?? false }), shots[index]?.name ?? '');
    }
  } finally {
    for (const end of endings) await end();
    rmSync(dir, { recursive: true, force: true });
  }
}

interface Shot {
  readonly name: string;
  readonly options: BrowserContextOptions;
  readonly isWhole?: boolean;
}

async function open(browser: Browser, url: string, { options }: Shot): Promise<Page> {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  await page.goto(url);
  return page;
}

/** With a palette: few colours, small files. */
async function keep(png: Buffer, name: string): Promise<void> {
  const small = await sharp(png).png({ palette: true, quality: 90, compressionLevel: 9, effort: 10 }).toBuffer();
  if (small.length > BYTES_MAX) throw new Error(`${name}.png has ${small.length} bytes, at most ${BYTES_MAX} are wanted`);
  writeFileSync(join(figures, `${name}.png`), small);
  process.stdout.write(`${name}.png ${small.length} bytes\n`);
}

const scene = { task: { name: 'sequence', seed: 3 }, policy: { checkpoint_dir: 'models/tabletop', recover: false } };
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--force-color-profile=srgb'] });
try {
  const desk = { viewport: { width: 1280, height: 900 } };
  const phone = { viewport: { width: 375, height: 812 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
  await draw(browser, 6, { ...scene, control: { mode: 'sync', thinking_ms: 240 } }, [
    { name: 'dashboard-light', options: { ...desk, colorScheme: 'light' }, isWhole: true },
    { name: 'dashboard-phone', options: { ...phone, colorScheme: 'light' } },
  ]);
  await draw(browser, 6, { ...scene, control: { mode: 'async-grounded', budget: 'ladder', thinking_ms: 720 } }, [
    { name: 'dashboard-dark', options: { ...desk, colorScheme: 'dark' }, isWhole: true },
  ]);
} finally {
  await browser.close();
}
