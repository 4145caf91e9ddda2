/**
 * The status page in a real headless Chromium, over real simulated episodes: values change, the button stops the robot by mouse, key and finger,
 * faults show with what to do, a lost connection is loud, nothing is loaded from elsewhere.
 */
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import t from 'tap';
import { PremotorError } from '../../src/errors.js';
import type { FakePolicy } from '../control/fakes.js';
import { expertPolicy } from '../support/expert-policy.js';
import { Gate, stage } from './stage.js';

/** Everything here waits for something to be seen; this is for a machine that does other things. */
const TIMEOUT_MS = 60_000;
const DESK = { width: 1280, height: 800 };
const PHONE = { width: 375, height: 812 };

function findChromium(): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/bin'];
  return folders.flatMap((folder) => ['chromium', 'chromium-browser', 'google-chrome'].map((name) => join(folder, name))).find(existsSync);
}

const executablePath = findChromium();
const skip = executablePath === undefined ? { skip: 'SKIPPED: no Chromium here (Debian package chromium): the page was not seen in a browser' } : {};

let browser: Promise<Browser> | undefined;
t.teardown(async () => (await browser)?.close());

function chromiumHere(): Promise<Browser> {
  browser ??= chromium.launch({ executablePath: executablePath ?? '', args: ['--no-sandbox'] });
  return browser;
}

/** What must never happen in the page is gathered while it is open. */
async function look(url: string, options: BrowserContextOptions = {}) {
  const context = await (await chromiumHere()).newContext({ viewport: DESK, ...options });
  context.setDefaultTimeout(TIMEOUT_MS);
  const page = await context.newPage();
  const problems: string[] = [];
  const { host } = new URL(url);
  page.on('console', (message) => void (['error', 'warning'].includes(message.type()) && problems.push(message.text())));
  page.on('pageerror', (error) => void problems.push(error.message));
  page.on('request', (request) => void (new URL(request.url()).host !== host && problems.push(`asks ${request.url()}`)));
  await page.goto(url);
  return { page, problems, close: () => context.close() };
}

const textOf = async (page: Page, id: string): Promise<string> => (await page.locator(`#${id}`).textContent()) ?? '';
const seen = (page: Page, id: string, pattern: RegExp): Promise<void> => page.locator(`#${id}`).filter({ hasText: pattern }).waitFor();

/** A policy that knows the way and goes it one chunk at a time. */
async function gated(): Promise<{ policy: FakePolicy; gate: Gate }> {
  const policy = await expertPolicy('touch', 3);
  const gate = new Gate();
  policy.before = (call, signal) => (call === 'predict' ? gate.pass(signal) : undefined);
  return { policy, gate };
}

t.test('values change, the button stops, the page says so', skip, async (t) => {
  const { policy, gate } = await gated();
  const { url, result, end } = await stage(t, { policy });
  const { page, problems, close } = await look(url);
  await seen(page, 'state', /^running$/);
  t.match(await textOf(page, 'chunks'), /^0 of \d+$/);
  gate.open(1);
  await seen(page, 'chunks', /^1 of \d+$/);
  const clock = await textOf(page, 'clock');
  await page.locator('#timeline-chart rect.executing').first().waitFor({ state: 'attached' });
  await page.locator('.joint .setpoint').filter({ hasText: /\d/ }).first().waitFor();
  const setpoint = await page.locator('.joint .setpoint').first().textContent();
  t.equal(await page.locator('.joint canvas').count(), 4, 'a chart for each joint');
  gate.open(1);
  await seen(page, 'chunks', /^2 of \d+$/);
  t.not(await textOf(page, 'clock'), clock, 'the clock goes on');
  t.not(await page.locator('.joint .setpoint').first().textContent(), setpoint, 'the joints move');
  await page
    .locator('figcaption')
    .filter({ hasText: /^livet \d/ })
    .first()
    .waitFor();
  await page
    .locator('figcaption')
    .filter({ hasText: /^imaginedt \d/ })
    .first()
    .waitFor();
  t.match(await textOf(page, 'cache-body'), /capacity100 entries/);
  await page.locator('#stop').click();
  await seen(page, 'stop', /Stop requested/);
  await seen(page, 'reason', /episode over: stopped/);
  t.match(await textOf(page, 'state'), /^disarmed$/);
  t.same(problems, []);
  await close();
  await end();
  const { summary } = await result;
  t.match(summary, { outcome: 'stopped', stopReason: 'stop button of the status page' });
  t.equal(summary.chunks.length, 2);
});

t.test('by keyboard: the first Tab is the stop button, Enter stops', skip, async (t) => {
  const { policy } = await gated();
  const { url } = await stage(t, { policy });
  const { page, problems, close } = await look(url, { colorScheme: 'dark' });
  await seen(page, 'state', /^running$/);
  t.equal(await page.evaluate('document.documentElement.dataset.theme'), 'dark', 'as the system asks');
  await page.keyboard.press('Tab');
  t.equal(await page.evaluate('document.activeElement.id'), 'stop');
  await page.keyboard.press('Enter');
  await seen(page, 'reason', /episode over: stopped/);
  await page.keyboard.press('Tab');
  t.equal(await page.evaluate('document.activeElement.id'), 'theme');
  await page.keyboard.press('Space');
  t.equal(await page.evaluate('document.documentElement.dataset.theme'), 'light', 'and as the viewer asks');
  t.same(problems, []);
  await close();
});

t.test('by finger, on a phone where nothing is wider than the screen', skip, async (t) => {
  const { policy, gate } = await gated();
  const { url } = await stage(t, { policy });
  const { page, problems, close } = await look(url, { viewport: PHONE, hasTouch: true, isMobile: true });
  gate.open(2);
  await seen(page, 'chunks', /^2 of \d+$/);
  t.ok(await page.evaluate('document.documentElement.scrollWidth <= innerWidth'), 'no scrolling sideways');
  const box = await page.locator('#stop').boundingBox();
  t.ok(box && box.height >= 44 && box.width >= 88 && box.y < 100, 'a button that a thumb finds');
  await page.locator('#stop').tap();
  await seen(page, 'reason', /episode over: stopped/);
  t.same(problems, []);
  await close();
});

t.test('an engine that dies: the robot holds, the page shows the fault and what to do', skip, async (t) => {
  const { policy, gate } = await gated();
  const pass = policy.before;
  policy.before = (call, signal) => {
    if (call !== 'predict' || policy.chunks.length === 0) return pass(call, signal);
    throw new PremotorError('ENGINE_DIED', 'The engine process ended: found signal SIGKILL.');
  };
  const { url } = await stage(t, { policy });
  const { page, problems, close } = await look(url);
  await seen(page, 'state', /^running$/);
  t.ok(await page.locator('#faults').isHidden());
  gate.open(1);
  await seen(page, 'state', /^fault$/);
  await page
    .locator('#fault-list li.fault')
    .filter({ hasText: /ENGINE_DIED.*SIGKILL/s })
    .waitFor();
  t.ok((await page.locator('#fault-list .remedy').first().textContent())?.length, 'what to do');
  t.equal(await page.locator('#fault-list').getAttribute('aria-live'), 'assertive');
  t.equal(await page.locator('#fault-list li').count(), 1, 'one fault is told once');
  t.same(problems, []);
  await close();
});

t.test('a camera that shows nothing: the episode does not begin, the page says why', skip, async (t) => {
  const { policy } = await gated();
  const { url, result, end } = await stage(t, { policy, change: { cameras: { dark_below: 254 } } });
  const { page, problems, close } = await look(url);
  await page
    .locator('#fault-list li')
    .filter({ hasText: /CAMERA_DARK/ })
    .waitFor();
  await seen(page, 'reason', /episode over/);
  t.same(problems, []);
  await close();
  await end();
  await t.rejects(result, { code: 'CAMERA_DARK' });
});

t.test('the supervisor is gone: loud, grey and old; the page comes back by itself', skip, async (t) => {
  const { policy } = await gated();
  const { url, end } = await stage(t, { policy });
  const { page, close } = await look(url);
  await seen(page, 'state', /^running$/);
  await end();
  await seen(page, 'lost', /Connection lost, robot state unknown/);
  t.match(await textOf(page, 'state'), /robot state unknown/);
  t.equal(await page.evaluate('document.body.className'), 'stale');
  t.equal(await page.evaluate("getComputedStyle(document.querySelector('#joint-list')).opacity"), '0.5', 'what is old looks old');
  await seen(page, 'link', /last heard \d+ s ago/);
  await page.locator('#stop').click();
  await seen(page, 'stop-note', /THE STOP WAS NOT HEARD/);
  const next = await gated();
  const again = await stage(t, { policy: next.policy, change: { dashboard: { port: Number(new URL(url).port) } } });
  t.equal(again.url, url);
  await page.locator('body:not(.stale)').waitFor();
  t.ok(await page.locator('#lost').isHidden());
  await seen(page, 'state', /^running$/);
  t.equal(await textOf(page, 'stop'), 'Stop', 'another process knows nothing of the press');
  await close();
});
