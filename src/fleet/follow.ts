/**
 * Following a roll-out: the robot's side. Fetches the fleet's signed list, decides by the robot's own name whether it is due, and if it is disarmed
 * and
 * still fetches the bundle and hands it to the installer. Owned by a timer on the robot. It never stops, disarms or restarts anything, and what a
 * bundle is worth is the installer's to judge.
 */
import { mkdir, readdir, readFile, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import { replaceFile } from '../replace-file.js';
import { downloadBundle, type FetchOptions, fetchSmall } from './download.js';
import { type Architecture, LIST_BYTES_MAX, openList, type RolloutList } from './list.js';

/** What can be said of a robot before anything is fetched for it. */
export type Stillness = 'still' | 'busy' | 'no service' | 'no answer';

export interface FollowParts extends FetchOptions {
  readonly url: string;
  /** The fleet's authority. */
  readonly authority: string;
  readonly fleet: string;
  readonly name: string;
  readonly arch: Architecture;
  /** Of the system that runs; undefined: it has none. */
  readonly version: string | undefined;
  /** State and downloads; on the data partition. */
  readonly dir: string;
  readonly stillness: () => Promise<Stillness>;
  /** Checks, writes and activates a bundle; `update install`. UPDATE_ROBOT_ACTIVE: not now. */
  readonly install: (file: string) => Promise<void>;
  readonly onProgress: (stage: string, done: number, total: number) => void;
  readonly bytesFree?: (dir: string) => Promise<number>;
}

/**
 * It runs the version; the list does not name it yet; the roll-out is paused; it was tried here and the robot does not run it; it failed too often;
 * there is no bundle for this computer; the robot is armed or moves; its service gives no answer; it is installed and waits for its start.
 */
export type FollowOutcome = 'current' | 'not due' | 'paused' | 'tried' | 'given up' | 'no bundle' | 'busy' | 'no answer' | 'installed';

export interface Followed {
  readonly outcome: FollowOutcome;
  readonly why: string;
  readonly version: string;
  readonly serial: number;
}

const ATTEMPTS_MAX = 3;
/** What must stay free beside a bundle. */
const BYTES_FREE_MIN = 64 * 2 ** 20;
const FILE = 'follow.json';
/** The installer's word for a robot that was armed meanwhile; the codes of installing are its own. */
const NOT_NOW = /^UPDATE_ROBOT_ACTIVE$/;

const stateSchema = z.object({
  serial: z.int().min(0),
  attempt: z.object({ sha256: z.string(), round: z.int(), count: z.int().min(0), isInstalled: z.boolean(), error: z.string().optional() }).optional(),
});
type State = z.output<typeof stateSchema>;

async function readState(file: string): Promise<State> {
  try {
    return stateSchema.parse(JSON.parse(await readFile(file, 'utf8')));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return { serial: 0 };
    const message = `${file} cannot be read. Remove it to follow the roll-out anew; lists that are older than the newest one may then be taken.`;
    throw new PremotorError('ROLLOUT_STATE', message, { file, expected: 'a file that update follow wrote', found: 'another content', cause });
  }
}

/** What a list means for a robot, before anything is done. Undefined: it is due. */
export function decide(
  list: RolloutList,
  state: State,
  { name, arch, version }: Pick<FollowParts, 'name' | 'arch' | 'version'>,
): [FollowOutcome, string] | undefined {
  if (version === list.version) return ['current', `it runs ${version}`];
  if (!list.robots.includes(name)) return ['not due', `the list does not name ${name} yet`];
  if (list.paused) return ['paused', 'the roll-out is paused'];
  const bundle = list.bundles[arch];
  if (bundle === undefined) return ['no bundle', `the list has none for ${arch}`];
  const { attempt } = state;
  if (attempt?.sha256 !== bundle.sha256 || attempt.round !== list.round) return undefined;
  if (attempt.isInstalled)
    return ['tried', `${list.version} was installed, and this robot runs ${version ?? 'another'}: it fell back, or was not started since`];
  if (attempt.count >= ATTEMPTS_MAX) return ['given up', `${attempt.count} times: ${attempt.error ?? 'it was interrupted'}`];
  return undefined;
}

/** One look at the roll-out. Errors: ROLLOUT_FETCH, ROLLOUT_LIST, ROLLOUT_OLD, ROLLOUT_STATE, ROLLOUT_BUNDLE, ROLLOUT_SPACE, and the installer's. */
export async function follow(parts: FollowParts): Promise<Followed> {
  await mkdir(parts.dir, { recursive: true });
  const file = join(parts.dir, FILE);
  const state = await readState(file);
  const list = await openList(parts.url, await fetchSmall(parts.url, LIST_BYTES_MAX, parts), parts.authority);
  checkList(list, state, parts);
  const seen: State = { ...state, serial: list.serial };
  if (list.serial !== state.serial) await save(file, seen);
  const say = (outcome: FollowOutcome, why: string): Followed => ({ outcome, why, version: list.version, serial: list.serial });
  const decided = decide(list, seen, parts);
  if (decided) {
    await sweep(parts.dir, decided[0] === 'paused' ? list.version : undefined);
    return say(...decided);
  }
  const stillness = await parts.stillness();
  if (stillness === 'busy') return say('busy', 'the robot is armed or moves');
  if (stillness === 'no answer') return say('no answer', "the robot's service runs and does not answer");
  return installFrom(list, seen, parts, say);
}

const save = (file: string, state: State): Promise<void> => replaceFile(file, `${JSON.stringify(state)}\n`, 0o644);

function checkList(list: RolloutList, { serial }: State, { url, fleet }: FollowParts): void {
  if (list.fleet !== fleet) {
    const message = `The list at ${url} is for the fleet "${list.fleet}". Correct its address, or this robot's telemetry.group_id.`;
    throw new PremotorError('ROLLOUT_FLEET', message, { file: url, expected: fleet, found: list.fleet });
  }
  if (list.serial >= serial) return;
  const message = `The list at ${url} is older than one that this robot has seen: somebody published an old one. Publish the newest.`;
  throw new PremotorError('ROLLOUT_OLD', message, { file: url, expected: `serial ${serial} or higher`, found: String(list.serial) });
}

const bundleName = (version: string): string => `${version}.raucb`;

/** Downloads of other versions go. */
async function sweep(dir: string, kept: string | undefined): Promise<void> {
  for (const name of await readdir(dir)) {
    if (/\.raucb(\.part)?$/.test(name) && (kept === undefined || !name.startsWith(bundleName(kept)))) await rm(join(dir, name), { force: true });
  }
}

async function installFrom(
  list: RolloutList,
  seen: State,
  parts: FollowParts,
  say: (outcome: FollowOutcome, why: string) => Followed,
): Promise<Followed> {
  const bundle = list.bundles[parts.arch];
  if (bundle === undefined) return say('no bundle', parts.arch);
  await sweep(parts.dir, list.version);
  await checkSpace(parts, bundle.bytes);
  const bundleFile = join(parts.dir, bundleName(list.version));
  await downloadBundle({ ...parts, bundle, file: bundleFile, onProgress: (done, total) => parts.onProgress('fetching', done, total) });
  const before = seen.attempt?.sha256 === bundle.sha256 && seen.attempt.round === list.round ? seen.attempt.count : 0;
  const attempt = { sha256: bundle.sha256, round: list.round, count: before + 1, isInstalled: false };
  const file = join(parts.dir, FILE);
  // Written first: an installer that takes the computer down counts as an attempt.
  await save(file, { ...seen, attempt });
  try {
    await parts.install(bundleFile);
  } catch (error) {
    const code = error instanceof PremotorError ? error.code : 'INTERNAL';
    const isBusy = NOT_NOW.test(code);
    await save(file, { ...seen, attempt: { ...attempt, count: isBusy ? before : attempt.count, error: code } });
    if (isBusy) return say('busy', (error as Error).message);
    throw error;
  } finally {
    await rm(bundleFile, { force: true });
  }
  await save(file, { ...seen, attempt: { ...attempt, isInstalled: true } });
  return say('installed', `${list.version} runs after the next start`);
}

async function checkSpace({ dir, bytesFree = bytesFreeOf }: FollowParts, bytes: number): Promise<void> {
  const free = await bytesFree(dir);
  if (free >= bytes + BYTES_FREE_MIN) return;
  const message = `There is no room for the bundle in ${dir}. Remove recordings, or give the data partition more room.`;
  throw new PremotorError('ROLLOUT_SPACE', message, { file: dir, expected: `${bytes + BYTES_FREE_MIN} free bytes`, found: String(free) });
}

async function bytesFreeOf(dir: string): Promise<number> {
  const { bavail, bsize } = await statfs(dir);
  return bavail * bsize;
}
