/**
 * What the status page and its server say to each other, as types that both are compiled with. Owned by the dashboard; it holds no code, so that the
 * browser gets none of the server's. Times of the robot are seconds of its clock; times of day are milliseconds since 1970.
 */

/** Where the run is: the policy is being loaded, the robot works, the episode is over. */
export type Phase = 'opening' | 'running' | 'ended';

export interface RunText {
  readonly id: string;
  readonly version: string;
  readonly robot: string;
  readonly task: string;
  readonly instruction: string;
  readonly seed: number;
  readonly chunksMax: number;
  readonly mode: string;
  readonly pace: string;
  readonly checkpoint: string;
  readonly untrained: boolean;
  /** Backend, precision, threads. */
  readonly policy: string;
  readonly joints: readonly { readonly name: string; readonly lowerRad: number; readonly upperRad: number }[];
  /** `isUsed`: the policy is shown it. */
  readonly cameras: readonly { readonly label: string; readonly isUsed: boolean }[];
  /** Of one chunk, seconds. */
  readonly chunkS: number;
  /** The ladder's rungs in words, best first; empty without a ladder. */
  readonly rungs: readonly string[];
  /** While it runs: whether pictures of what the policy imagines can be had. */
  readonly imagines: boolean;
  /** One picture for each camera, or one for all. */
  readonly imaginedParts: 'cameras' | 'joined';
}

/** What was asked of the stop button, and what became of it. */
export interface StopText {
  /** 'asked' until the robot's own state says more. */
  readonly phase: 'none' | 'asked';
  readonly atMs: number;
}

export interface BudgetText {
  /** undefined: this mode has no budget. */
  readonly rung?: { readonly index: number; readonly fits: boolean; readonly expectedMs: number | null };
  readonly predictMs: number;
  readonly parts: { readonly encode: number; readonly commit: number; readonly imagine: number; readonly video: number; readonly action: number };
  /** Over all chunks. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export interface StateText {
  readonly timeS: number;
  readonly phase: Phase;
  readonly state: string;
  /** Why it came to that. */
  readonly reason: string;
  readonly outcome: string | null;
  readonly stream: string;
  readonly link: string;
  readonly bridge: string;
  readonly isAtRest: boolean;
  readonly faultCode: string;
  readonly counts: Readonly<Record<string, number>>;
  readonly temperaturesC: Readonly<Record<string, number>>;
  readonly cache: { readonly capacity: number; readonly valid: number; readonly committed: number; readonly predicted: number };
  readonly budget: BudgetText | null;
  readonly chunks: number;
  readonly clampedKnots: number;
  readonly knots: number;
  readonly stop: StopText;
  readonly viewers: number;
  /** Of the long-running service, and why it is not further; null: a single run. */
  readonly service: { readonly state: string; readonly reasons: readonly string[] } | null;
}

/** One chunk as the timeline shows it. Absent ends: not yet. */
export interface ChunkText {
  readonly chunk: number;
  readonly computeFromS?: number;
  readonly computeToS?: number;
  readonly executeFromS?: number;
  readonly executeToS?: number;
  /** The chunk came so long after the plan before it was over; 0: in time. */
  readonly lateS: number;
  /** Wall clock, once it is known. */
  readonly predictMs?: number;
  readonly executeMs?: number;
  readonly commitMs?: number;
  readonly rung?: number;
  readonly fits?: boolean;
  readonly clampedKnots?: number;
  readonly knots?: number;
  readonly delayKnots?: number;
}

export interface FaultText {
  readonly id: number;
  readonly kind: 'fault' | 'warning' | 'note';
  readonly code: string;
  readonly message: string;
  /** From docs/ERRORS.md; empty where the message says it. */
  readonly remedy: string;
  readonly timeS: number;
  readonly atMs: number;
  /** How often. */
  readonly count: number;
}

/** Columns of the motion. `joints[j]` has six: setpoint, its minimum and maximum, then the same of the measured position; null: no setpoint. */
export interface MotionText {
  readonly timesS: readonly number[];
  readonly joints: readonly (readonly (readonly (number | null)[])[])[];
}

export type ServerMessage =
  /** First of all, and again when the run becomes known. */
  | { readonly type: 'hello'; readonly process: string; readonly run: RunText | null; readonly viewersMax: number }
  | {
      readonly type: 'tick';
      readonly state: StateText;
      /** Absent: as before. */
      readonly chunks?: readonly ChunkText[];
      readonly faults?: readonly FaultText[];
      readonly motion?: MotionText;
    }
  /** The stop button's answer. */
  | { readonly type: 'stopping'; readonly stop: StopText }
  /** The process ends in order. */
  | { readonly type: 'bye' };

/** Heads a picture. A binary message is the length of this head (uint16, little-endian), the head as JSON, and the JPEG. */
export interface PictureHead {
  readonly kind: 'live' | 'imagined';
  /** Of `cameras`; -1: all of them side by side. */
  readonly camera: number;
  readonly timeS: number;
}

export type ViewerMessage = { readonly type: 'stop' } | { readonly type: 'look'; readonly visible: boolean };
