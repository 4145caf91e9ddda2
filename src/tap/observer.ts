/**
 * How telemetry, the flight recorder and the status page watch a robot: the one interface that they have in common, and what they are told. They are
 * told everything and change nothing: the only thing that an observer may ask for is a stop. Types only; src/runtime owns the observers.
 */
import type { CameraInfo } from '../cameras/source.js';
import type { CycleEvent, CycleReport } from '../control/events.js';
import type { State } from '../control/lifecycle.js';
import type { PremotorError } from '../errors.js';
import type { CacheState, DecodedVideo, Frame, Job, PolicyInfo, ShapedArray } from '../policy/contract.js';
import type { Recovery } from '../policy/recovering.js';
import type { CallNote } from '../replay/recording-policy.js';
import type { Joint } from '../robot/robot.js';

/** The motors at one moment of the robot's clock. The arrays are reused for the next sample: whoever keeps one copies it. */
export interface MotionSample {
  readonly timeNs: bigint;
  /** What the setpoint stream tells the joints, [joints]; NaN while it tells nothing. */
  readonly setpointRad: Float64Array;
  /** What the bridge reported last, [joints]; where it reports nothing, what the robot itself measures. */
  readonly positionsRad: Float64Array;
  readonly velocitiesRadPerS: Float64Array;
}

/** Stream, bridge and bus as they are now, for whoever asks now and then. */
export interface RobotStatus {
  readonly timeNs: bigint;
  /** Of the control cycle. */
  readonly state: State;
  /** Of the setpoint stream, of its link to the bridge, and of the bridge. */
  readonly stream: string;
  readonly link: string;
  readonly bridge: string;
  /** Latched by the stream or the bridge; empty without. */
  readonly faultCode: string;
  readonly faultMessage: string;
  readonly isAtRest: boolean;
  /** Counters by name, since the robot was opened: cycles, missed, chunks, chunks_refused, expired, sets_followed, values_clamped, frames_ignored. */
  readonly counts: Readonly<Record<string, number>>;
  /** Degrees Celsius by name, where there are sensors. */
  readonly temperaturesC: Readonly<Record<string, number>>;
  /** The version of the bridge's firmware, where it says so. */
  readonly firmware?: string;
}

/** What is known before the first movement. */
export interface RunAbout {
  /** Of this run, unique on this machine: 2026-11-30T10-11-12-345Z. */
  readonly id: string;
  readonly version: string;
  readonly robot: string;
  readonly joints: readonly Joint[];
  readonly cameras: readonly CameraInfo[];
  readonly task: string;
  readonly instruction: string;
  readonly seed: number;
  readonly chunksMax: number;
  readonly actionRateHz: number;
  readonly mode: string;
  readonly checkpoint: string;
  readonly untrained: boolean;
  readonly job: Job;
  readonly policy: PolicyInfo;
  /** The checked configuration, as plain data. */
  readonly configuration: unknown;
  /** Wall clock, nanoseconds since 1970, at `timeNs` of the robot's clock: what turns the one into the other. */
  readonly epochNs: bigint;
  readonly timeNs: bigint;
}

/** What is known before the policy is there, and between two episodes. */
export type StandbyAbout = Pick<
  RunAbout,
  'id' | 'version' | 'joints' | 'task' | 'instruction' | 'mode' | 'chunksMax' | 'checkpoint' | 'configuration'
> &
  Partial<Pick<RunAbout, 'policy'>>;

/** How the long-running service is, for whoever shows it. */
export interface ServiceReport {
  /** docs/SERVICE.md */
  readonly state: string;
  /** Why it is not further: codes with their words. */
  readonly reasons: readonly { readonly code: string; readonly message: string }[];
  readonly autonomy: string;
  readonly isArmed: boolean;
  readonly isInMaintenance: boolean;
  /** Of the wall clock. */
  readonly clockSteps: number;
  readonly lastClockStepMs: number;
}

/** What an observer may do. */
export interface RunControl {
  /** A controlled stop; the only request there is. Nothing starts or resumes a motion from here. */
  requestStop(reason: string): void;
  status(): RobotStatus;
  cache(): CacheState;
  /** Pictures of latents. The engine computes it between its other calls: ask only while it has nothing to do, and not in asynchronous modes. */
  decode(latents: ShapedArray): Promise<DecodedVideo>;
}

/** What happened, beside the control cycle's events. */
export type RunEvent =
  | { readonly type: 'cycle'; readonly event: CycleEvent }
  /** Pictures as the cameras gave them, every one once, whether the policy used them or not. */
  | { readonly type: 'frames'; readonly frames: readonly Frame[] }
  /** What the policy was asked and answered; told only when the recorder watches. The first one of a resumed episode comes before begin(). */
  | { readonly type: 'call'; readonly note: CallNote }
  | { readonly type: 'recovery'; readonly recovery: Recovery }
  | { readonly type: 'warning'; readonly error: PremotorError }
  /** What the policy imagined, decoded after the episode, if anything wanted it. `timeNs`: when the picture was to come true. */
  | { readonly type: 'imagined'; readonly frame: Frame; readonly timeNs: bigint };

/** One that watches. Everything but close() may come at any time after begin(), on the event loop; none of it may block or throw. */
export interface Observer {
  readonly name: 'telemetry' | 'recorder' | 'dashboard' | 'prometheus';
  /** Nothing has moved yet. What it needs was opened before, by its factory. */
  begin(about: RunAbout, control: RunControl): Promise<void>;
  /**
   * A service watches between episodes, too: called once the robot is known, and again when it has become another one. begin() and end() follow for
   * every episode. Only observers that outlive an episode have it.
   */
  attend?(about: StandbyAbout, control: RunControl): Promise<void>;
  /** The service has looked around. */
  service?(report: ServiceReport): void;
  /** Whether what it reports reaches somebody. */
  readonly isConnected?: boolean;
  /** Why it is not there yet: it is opened later. */
  readonly notOpen?: PremotorError | undefined;
  /** `timeNs`: the robot's clock. */
  event(event: RunEvent, timeNs: bigint): void;
  /** Every cycle of the setpoint stream, 1000 a second of the robot's time; they come a few at once. */
  motion(sample: MotionSample): void;
  /** The episode is over and the robot holds or has no power; undefined: it failed before it began. */
  end(report: CycleReport | undefined): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}

/** What an observer's factory is given. */
export interface ObserverParts {
  /** A remark for the operator, such as where the page is served. */
  readonly onNotice: (text: string) => void;
  /** It goes on without something. */
  readonly onWarning: (error: PremotorError) => void;
}
