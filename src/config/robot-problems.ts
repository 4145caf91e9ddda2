/**
 * What of the section `robot` no schema can say: which keys belong to which type of robot, and what a robot on a bus needs elsewhere in the file.
 * Owned by reader.ts; it looks at the values alone and opens nothing.
 */
import type { Joint } from '../robot/robot.js';
import { describe } from '../wording.js';
import type { ConfigProblem } from './reader.js';
import { CAN_KEYS } from './robot.js';

/** A file's values, and where in its text each key stands. */
export interface Reading {
  at(path: readonly PropertyKey[]): unknown;
  problem(path: readonly PropertyKey[], expected: string, found: string): ConfigProblem;
}

/** Axes that a bridge has at most (protocol/README.md). */
const JOINTS_MAX = 14;
const JOINT_NAME = /^[A-Za-z_][A-Za-z0-9_.-]*$/;

type Section = Readonly<Record<string, unknown>>;

const sectionOf = (value: unknown): Section => (typeof value === 'object' && value !== null ? (value as Section) : {});
const isThere = (value: unknown): boolean => value !== undefined && value !== null;

export const isCan = (source: Reading): boolean => source.at(['robot', 'type']) === 'can';
/** A robot in the real world: nothing simulates its surroundings, so nothing judges its task. */
export const isUnjudged = (source: Reading): boolean => isCan(source) && source.at(['robot', 'world']) !== 'sim';

/** The joints that the rest of the file may name: those of the simulated arm, or those that the file has itself. */
export function jointsOf(source: Reading, simulated: readonly Joint[]): readonly Joint[] {
  if (!isCan(source)) return simulated;
  return Object.entries(sectionOf(source.at(['robot', 'joints']))).map(([name, value]): Joint => {
    const limits = sectionOf(value);
    const limit = (key: string, fallback: number): number => (typeof limits[key] === 'number' ? limits[key] : fallback);
    return {
      name,
      lowerRad: limit('lower_rad', Number.NEGATIVE_INFINITY),
      upperRad: limit('upper_rad', Number.POSITIVE_INFINITY),
      velocityMaxRadPerS: limit('velocity_max_rad_per_s', Number.POSITIVE_INFINITY),
      accelerationMaxRadPerS2: limit('acceleration_max_rad_per_s2', Number.POSITIVE_INFINITY),
      jerkMaxRadPerS3: limit('jerk_max_rad_per_s3', Number.POSITIVE_INFINITY),
    };
  });
}

/** `simulated`: the joints of the simulated arm, which a robot in a simulated world must have. */
export function robotProblems(source: Reading, simulated: readonly Joint[]): ConfigProblem[] {
  const robot = sectionOf(source.at(['robot']));
  if (robot['type'] === 'sim') {
    return CAN_KEYS.filter((key) => isThere(robot[key])).map((key) =>
      source.problem(['robot', key], 'nothing: only a robot of type can has it', describe(robot[key])),
    );
  }
  if (robot['type'] !== 'can') return [];
  const problems: ConfigProblem[] = [];
  if (robot['pace'] === 'virtual') problems.push(source.problem(['robot', 'pace'], '"real": a robot on a bus has no other', '"virtual"'));
  if (!isThere(robot['bus'])) problems.push(source.problem(['robot', 'bus'], 'the bus of the bridge, such as socketcan-fd:can0', 'nothing'));
  const thinking = source.at(['control', 'thinking_ms']);
  if (isThere(thinking)) {
    problems.push(source.problem(['control', 'thinking_ms'], 'nothing: on a real clock thinking takes what it takes', describe(thinking)));
  }
  problems.push(...jointProblems(source), ...workspaceProblems(source));
  return [...problems, ...(isUnjudged(source) ? unjudgedProblems(source) : simulatedProblems(source, simulated))];
}

function jointProblems(source: Reading): ConfigProblem[] {
  const joints = jointsOf(source, []);
  if (joints.length < 1 || joints.length > JOINTS_MAX) {
    const found = joints.length === 0 ? 'none' : String(joints.length);
    return [source.problem(['robot', 'joints'], `1 to ${JOINTS_MAX} joints by name, in the order of the bridge's axes`, found)];
  }
  return joints.flatMap(({ name, lowerRad, upperRad }) => {
    const path = ['robot', 'joints', name];
    // A name that is a number would change the order.
    if (!JOINT_NAME.test(name)) return [source.problem(path, 'a name of letters, digits, _ . - that begins with a letter', `"${name}"`)];
    return lowerRad < upperRad ? [] : [source.problem([...path, 'upper_rad'], `more than lower_rad (${lowerRad})`, String(upperRad))];
  });
}

function workspaceProblems(source: Reading): ConfigProblem[] {
  const names = jointsOf(source, []).map(({ name }) => name);
  return Object.entries(sectionOf(source.at(['robot', 'workspaces']))).flatMap(([arm, value]) => {
    const { first_joint: first, lower_m: lower, upper_m: upper } = sectionOf(value);
    const path = ['robot', 'workspaces', arm];
    const problems: ConfigProblem[] = [];
    if (typeof first === 'string' && !names.includes(first)) {
      problems.push(source.problem([...path, 'first_joint'], `one of ${names.join(', ')}`, `"${first}"`));
    }
    const isBox = Array.isArray(lower) && Array.isArray(upper);
    if (isBox && lower.some((low, axis) => !(Number(low) < Number(upper[axis])))) {
      problems.push(source.problem([...path, 'upper_m'], `more than lower_m (${lower.join(', ')})`, upper.join(', ')));
    }
    return problems;
  });
}

/** Nothing knows when such a task is done, and no scene has words for it. */
function unjudgedProblems(source: Reading): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  if (!isThere(source.at(['task', 'instruction']))) {
    problems.push(source.problem(['task', 'instruction'], 'a text: a real table has no scene with one', 'nothing'));
  }
  if (!isThere(source.at(['control', 'chunks_max']))) {
    problems.push(source.problem(['control', 'chunks_max'], 'a whole number of 1 .. 10000: nothing else ends the episode', 'nothing'));
  }
  return problems;
}

/** The arm in the simulated world has the measured joints: they must be its own. */
function simulatedProblems(source: Reading, simulated: readonly Joint[]): ConfigProblem[] {
  const joints = jointsOf(source, []);
  const [expected, found] = [simulated, joints].map((all) => all.map(({ name }) => name).join(', '));
  if (expected !== found) {
    return joints.length === 0 ? [] : [source.problem(['robot', 'joints'], `${expected}, the joints of the simulated arm`, found ?? '')];
  }
  return joints.flatMap(({ name, lowerRad, upperRad }, index) => {
    const own = simulated[index];
    if (!own) return [];
    const range = `${own.lowerRad} .. ${own.upperRad}, within the simulated arm's range`;
    const path = ['robot', 'joints', name];
    if (lowerRad < own.lowerRad) return [source.problem([...path, 'lower_rad'], range, String(lowerRad))];
    return upperRad > own.upperRad ? [source.problem([...path, 'upper_rad'], range, String(upperRad))] : [];
  });
}
