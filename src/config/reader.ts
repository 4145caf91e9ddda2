/**
 * Reads a robot configuration, a YAML file, into the readonly RobotConfig. Every problem is found at once and says file, line, key, what was expected
 * and what was found; unknown keys are refused with the name that was probably meant. Owned by the command line; it opens nothing that a file names.
 */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { type Document, isMap, isNode, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml';
import type { z } from 'zod';
import { PremotorError } from '../errors.js';
import type { Joint } from '../robot/robot.js';
import { describe, nearestName } from '../wording.js';
import { concerns } from './robot.js';
import { isCan, isUnjudged, jointsOf, type Reading, robotProblems } from './robot-problems.js';
import { configKeys, expectedAt, namesUnder, type RobotConfig, robotConfigSchema } from './schema.js';

/** Longer files are no configurations. */
const FILE_CHARACTERS_MAX = 1 << 20;
const PROBLEMS_SHOWN = 5;

/** What exists for the robot types, told by whoever knows them. */
export interface Vocabulary {
  readonly tasks: readonly string[];
  readonly joints: readonly Joint[];
}

export interface ConfigProblem {
  readonly file: string;
  /** Counted from 1. */
  readonly line: number;
  readonly column: number;
  /** Path of the key, such as control.hold_ms; empty for the whole file. */
  readonly key: string;
  readonly expected: string;
  readonly found: string;
}

export interface LoadedConfig {
  readonly file: string;
  readonly config: RobotConfig;
  /** Keys that the file does not have. */
  readonly defaults: readonly string[];
  /** A problem that is found later, at the place of its key. */
  problemAt(key: string, expected: string, found: string): ConfigProblem;
}

/** A file with problems; the message shows the first few. */
export class ConfigError extends PremotorError {
  readonly problems: readonly ConfigProblem[];

  constructor(file: string, problems: readonly ConfigProblem[]) {
    const first = problems[0];
    const shown = problems.slice(0, PROBLEMS_SHOWN).map(showProblem).join('; ');
    const more = problems.length > PROBLEMS_SHOWN ? `; and ${problems.length - PROBLEMS_SHOWN} more` : '';
    super('CONFIG_INVALID', `The configuration is not usable: ${shown}${more}. Correct the file; docs/CONFIG.md lists the keys.`, {
      file,
      ...(first === undefined ? {} : { field: first.key, expected: first.expected, found: first.found }),
    });
    this.problems = problems;
  }
}

/** One problem in one line. */
export function showProblem({ file, line, column, key, expected, found }: ConfigProblem): string {
  return `${file}:${line}:${column}: ${key === '' ? '' : `${key}: `}expected ${expected}, found ${found}`;
}

/** Errors: CONFIG_MISSING, CONFIG_INVALID (a ConfigError). */
export async function readRobotConfig(file: string, vocabulary: Vocabulary): Promise<LoadedConfig> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    const found = (cause as NodeJS.ErrnoException).code === 'EISDIR' ? 'a folder' : `no readable file (${(cause as Error).message})`;
    const message = `The configuration ${file} cannot be read: expected a YAML file, found ${found}. Check the path.`;
    throw new PremotorError('CONFIG_MISSING', message, { file, expected: 'a YAML file', found, cause });
  }
  return parseRobotConfig(text, file, vocabulary);
}

/** Checks a configuration's text. `file` is named in problems, and relative paths start from its folder. Errors: CONFIG_INVALID (a ConfigError). */
export function parseRobotConfig(text: string, file: string, vocabulary: Vocabulary): LoadedConfig {
  if (text.length > FILE_CHARACTERS_MAX) {
    const expected = `at most ${FILE_CHARACTERS_MAX} characters`;
    throw new ConfigError(file, [{ file, line: 1, column: 1, key: '', expected, found: String(text.length) }]);
  }
  const source = new Source(text, file);
  const result = robotConfigSchema.safeParse(source.value);
  const problems = result.success ? [] : result.error.issues.flatMap((issue) => problemsOf(issue, source));
  problems.push(...vocabularyProblems(source, vocabulary), ...backendProblems(source), ...robotProblems(source, vocabulary.joints));
  if (!result.success || problems.length > 0)
    throw new ConfigError(
      file,
      problems.sort((a, b) => a.line - b.line || a.column - b.column),
    );
  const defaults = configKeys()
    .map(({ path }) => path)
    .filter((path) => !path.includes('<') && concerns(result.data.robot.type, path) && !source.has(path.split('.')));
  return {
    file,
    config: absolutePaths(completed(result.data, source), dirname(resolve(file))),
    defaults,
    problemAt: (key, expected, found) => source.problem(key.split('.'), expected, found),
  };
}

/** A YAML text: its value, and where in the text each key stands. */
class Source implements Reading {
  readonly file: string;
  readonly value: unknown;
  readonly #document: Document;
  readonly #lines = new LineCounter();

  /** Errors: CONFIG_INVALID when the text is no YAML. */
  constructor(text: string, file: string) {
    this.file = file;
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false });
    const broken = [...this.#document.errors, ...this.#document.warnings].map(({ pos, message }) => this.#problem(pos[0], message));
    if (broken.length > 0) throw new ConfigError(file, broken);
    try {
      this.value = this.#document.toJS();
    } catch (error) {
      throw new ConfigError(file, [this.#problem(0, (error as Error).message)]);
    }
    // A section whose keys are all commented out is a section that is left out.
    if (typeof this.value !== 'object' || this.value === null) return;
    const sections = this.value as Record<string, unknown>;
    for (const name of namesUnder([])) if (sections[name] === null) delete sections[name];
    const control = sections['control'] as Record<string, unknown> | undefined;
    if (control?.['limits'] === null) delete control['limits'];
    if (control?.['start_pose'] === null) delete control['start_pose'];
  }

  #problem(offset: number, found: string): ConfigProblem {
    const { line, col } = this.#lines.linePos(offset);
    return { file: this.file, line: Math.max(1, line), column: Math.max(1, col), key: '', expected: 'YAML', found };
  }

  has(path: readonly PropertyKey[]): boolean {
    return this.#document.hasIn(path);
  }

  at(path: readonly PropertyKey[]): unknown {
    let value: unknown = this.value;
    for (const part of path) value = (value as Record<PropertyKey, unknown> | undefined | null)?.[part];
    return value;
  }

  /** Where a key stands; for one that is not there, the nearest section around it. */
  problem(path: readonly PropertyKey[], expected: string, found: string): ConfigProblem {
    let node: unknown = this.#document.contents;
    let offset = isNode(node) ? (node.range?.[0] ?? 0) : 0;
    for (const part of path) {
      const key: Node | undefined = isMap(node)
        ? (node.items.map((item) => item.key).find((one) => isScalar(one) && String(one.value) === part) as Node)
        : undefined;
      const entry: unknown = isMap(node) ? node.get(part, true) : isSeq(node) ? node.get(part as number, true) : undefined;
      const place = key?.range ?? (isNode(entry) ? entry.range : undefined);
      if (!place) break;
      [offset, node] = [place[0], entry];
    }
    return { ...this.#problem(offset, found), key: path.map(String).join('.'), expected };
  }
}

function problemsOf(issue: z.core.$ZodIssue, source: Source): ConfigProblem[] {
  const { path } = issue;
  if (issue.code !== 'unrecognized_keys') return [source.problem(path, expectedAt(path), describe(source.at(path) ?? undefined))];
  const names = namesUnder(path);
  return issue.keys.map((key) => {
    // Often only the unit is missing.
    const meant = nearestName(key, names) ?? names.find((name) => name.startsWith(`${key}_`));
    const expected = `one of ${names.join(', ')}`;
    return source.problem([...path, key], expected, `an unknown key${meant === undefined ? '' : `: did you mean ${meant}?`}`);
  });
}

/** Names that no schema can know: tasks, joints; and limits that would be wider than the robot's own. */
function vocabularyProblems(source: Source, { tasks, joints: simulated }: Vocabulary): ConfigProblem[] {
  const joints = jointsOf(source, simulated);
  const problems: ConfigProblem[] = [];
  const suggest = (name: string, names: readonly string[]): string => {
    const meant = nearestName(name, names);
    return `"${name}"${meant === undefined ? '' : `: did you mean ${meant}?`}`;
  };
  const task = source.at(['task', 'name']);
  if (typeof task === 'string' && !tasks.includes(task) && !isUnjudged(source)) {
    problems.push(source.problem(['task', 'name'], `one of ${tasks.join(', ')}`, suggest(task, tasks)));
  }
  const names = joints.map(({ name }) => name);
  const pose = source.at(['control', 'start_pose']);
  for (const [name, wanted] of Object.entries(typeof pose === 'object' && pose !== null ? pose : {})) {
    const path = ['control', 'start_pose', name];
    const joint = joints.find((candidate) => candidate.name === name);
    if (joint) problems.push(...poseProblems(source, path, joint, wanted as Record<string, unknown> | null));
    else problems.push(source.problem(path, `one of ${names.join(', ')}`, suggest(name, names)));
  }
  const limits = source.at(['control', 'limits']);
  if (typeof limits !== 'object' || limits === null) return problems;
  for (const [name, wanted] of Object.entries(limits)) {
    const path = ['control', 'limits', name];
    const joint = joints.find((candidate) => candidate.name === name);
    if (joint) problems.push(...limitProblems(source, path, joint, wanted as Record<string, unknown> | null));
    else problems.push(source.problem(path, `one of ${names.join(', ')}`, suggest(name, names)));
  }
  return problems;
}

/** Keys that one backend needs and another does not. */
function backendProblems(source: Source): ConfigProblem[] {
  const policy = source.at(['policy']);
  if (typeof policy !== 'object' || policy === null) return [];
  const { backend = 'engine', checkpoint_dir, job, url } = policy as Record<string, unknown>;
  const missing = (key: string, expected: string): ConfigProblem => source.problem(['policy', key], expected, 'nothing');
  const none = (value: unknown): boolean => value === undefined || value === null;
  if (backend !== 'remote') return none(checkpoint_dir) ? [missing('checkpoint_dir', 'the path of a folder')] : [];
  const problems: ConfigProblem[] = [];
  if (none(url)) problems.push(missing('url', 'ws://HOST:PORT or wss://HOST:PORT, because the backend is remote'));
  if (none(checkpoint_dir) && none(job)) problems.push(missing('job', 'a job, because there is no checkpoint_dir to have one'));
  const mode = source.at(['control', 'mode']) ?? 'sync';
  if (mode !== 'sync')
    problems.push(source.problem(['control', 'mode'], '"sync", the only mode that a policy server has requests for', describe(mode)));
  return problems;
}

function poseProblems(source: Source, path: readonly string[], joint: Joint, wanted: Record<string, unknown> | null): ConfigProblem[] {
  const angle = wanted?.['position_rad'];
  if (typeof angle !== 'number' || (angle >= joint.lowerRad && angle <= joint.upperRad)) return [];
  return [source.problem([...path, 'position_rad'], `${joint.lowerRad} .. ${joint.upperRad}, within the robot's own range`, String(angle))];
}

function limitProblems(source: Source, path: readonly string[], joint: Joint, wanted: Record<string, unknown> | null): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const check = (key: string, low: number, high: number): void => {
    const value = wanted?.[key];
    if (typeof value !== 'number' || (value >= low && value <= high)) return;
    problems.push(source.problem([...path, key], `${low} .. ${high}, within the robot's own limits`, String(value)));
  };
  check('lower_rad', joint.lowerRad, joint.upperRad);
  check('upper_rad', joint.lowerRad, joint.upperRad);
  check('velocity_max_rad_per_s', 0, joint.velocityMaxRadPerS);
  check('acceleration_max_rad_per_s2', 0, joint.accelerationMaxRadPerS2);
  check('jerk_max_rad_per_s3', 0, joint.jerkMaxRadPerS3);
  const [lower, upper] = [wanted?.['lower_rad'] ?? joint.lowerRad, wanted?.['upper_rad'] ?? joint.upperRad];
  if (problems.length === 0 && Number(lower) >= Number(upper)) {
    problems.push(source.problem([...path, 'upper_rad'], `more than lower_rad (${lower})`, String(upper)));
  }
  return problems;
}

/** A task that nobody judges and nobody named, in reports. */
const UNNAMED_TASK = 'instruction';

/** What a robot on a bus has instead of the simulated one's defaults: the clock's pace, and a task of no scene. */
function completed(config: z.output<typeof robotConfigSchema>, source: Source): z.output<typeof robotConfigSchema> {
  if (!isCan(source)) return config;
  const isUnnamed = isUnjudged(source) && !source.has(['task', 'name']);
  return { ...config, robot: { ...config.robot, pace: 'real' }, task: isUnnamed ? { ...config.task, name: UNNAMED_TASK } : config.task };
}

/** Keys that hold paths, by section. A job may be a path or the job itself; a checkpoint of a remote policy may be missing. */
const PATH_KEYS: Readonly<Record<string, readonly string[]>> = {
  robot: ['shared_memory', 'stream_output', 'bus_log'],
  policy: ['checkpoint_dir', 'job', 'plan', 'token_file'],
  recording: ['out_dir', 'journal_dir'],
  'recording.recorder': ['dir'],
  telemetry: ['password_file', 'ca_file', 'cert_file', 'key_file', 'queue_dir'],
  dashboard: ['token_file'],
  service: ['control_socket', 'state_dir'],
};

/** Relative paths start from `base`. A device is no relative path. */
function absolutePaths(config: z.output<typeof robotConfigSchema>, base: string): RobotConfig {
  const resolved = structuredClone(config);
  const make = (section: Record<string, unknown>, keys: readonly string[]): void => {
    for (const key of keys) if (typeof section[key] === 'string') section[key] = resolve(base, section[key]);
  };
  for (const [section, keys] of Object.entries(PATH_KEYS)) {
    const inside = section.split('.').reduce<unknown>((value, part) => (value as Record<string, unknown>)[part], resolved);
    make(inside as Record<string, unknown>, keys);
  }
  for (const source of Object.values(resolved.cameras.sources)) make(source, ['path']);
  for (const workspace of Object.values(resolved.robot.workspaces ?? {})) make(workspace, ['urdf']);
  return resolved;
}
