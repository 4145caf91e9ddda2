/** Types of what the addon exports for motion (cpp/addon/virtual_robot_object, stream_client_object). Types only: native.ts loads the addon. */
import type { NativeChain } from './native-kinematics.js';

/** One joint of the setpoint stream (cpp/stream/motion.h). */
export interface NativeJoint {
  readonly lowerRad: number;
  readonly upperRad: number;
  readonly velocityMaxRadPerS: number;
  readonly accelerationMaxRadPerS2: number;
  readonly jerkMaxRadPerS3: number;
  readonly torqueMaxNm: number;
}

export interface NativeMotionOptions {
  readonly joints: readonly NativeJoint[];
  readonly periodNs: number;
  /** How long before it is due a setpoint leaves. */
  readonly leadNs: number;
  /** So long after all that the control cycle vouched for, its silence is a fault. */
  readonly plannerGraceNs: number;
  readonly wantsFd: boolean;
  /** Should differ at each start. */
  readonly nonceSeed: number;
  /** Boxes that the tips of arms must stay in, m, in the frame of the chain's mount; an arm's joints follow each other from `firstJoint`. */
  readonly workspaces?: readonly {
    readonly chain: NativeChain;
    readonly firstJoint: number;
    readonly lowerM: Float64Array; // [3]
    readonly upperM: Float64Array; // [3]
  }[];
}

/** A chunk for the timeline (cpp/stream/timeline.h): knots [knot, joint] rad at absolute times of the robot's clock. */
export interface NativePlan {
  readonly sequence: bigint;
  readonly liveness: bigint;
  readonly spliceNs: bigint;
  readonly startNs: bigint;
  readonly deadlineNs: bigint;
  readonly knotNs: bigint;
  readonly knots: Float64Array;
}

export interface NativeExecuted {
  readonly sequence: bigint;
  readonly knot: number;
  readonly timeNs: bigint;
  readonly isClamped: boolean;
  readonly positionRad: Float64Array;
}

export interface NativeLinkFault {
  readonly code: string;
  readonly message: string;
  /** The bridge's fault code, 0 none (protocol/README.md). */
  readonly fault: number;
  readonly result: number;
  readonly axis: number | null;
  readonly detail: number;
}

export interface NativeMotionStatus {
  readonly timeNs: bigint;
  readonly stream: 'disarmed' | 'holding' | 'following' | 'expiring' | 'stopping' | 'fault';
  readonly link: 'off' | 'connecting' | 'uploading' | 'ready' | 'clearing' | 'arming' | 'armed' | 'disarming' | 'faulted';
  readonly bridge: 'silent' | 'disarmed' | 'holding' | 'following' | 'slowing' | 'stopping' | 'fault';
  /** Empty without a fault. */
  readonly faultCode: string;
  readonly linkFault: NativeLinkFault | null;
  /** Of the chunk in charge, 0 without. */
  readonly sequence: bigint;
  /** The newest chunk that was looked at, and why it was refused; empty when it was taken. */
  readonly judgedSequence: bigint;
  readonly refusal: string;
  readonly hasSetpoints: boolean;
  readonly isAtRest: boolean;
  readonly setpointTimeNs: bigint;
  readonly setpointRad: Float64Array;
  /** Arrival of the newest feedback, -1 before the first. */
  readonly measuredNs: bigint;
  readonly measuredRad: Float64Array;
  readonly measuredRadPerS: Float64Array;
}

/**
 * Cycles of the stream (cpp/motion/sample_ring.h). One object with arrays of fixed length, filled anew by every call; `count` cycles of them count.
 */
export interface NativeSamples {
  readonly count: number;
  /** Cycles that nobody took in time, since the robot was opened or this supervisor attached. */
  readonly lost: number;
  /** Of the cycles, [cycle]. */
  readonly timesNs: BigInt64Array;
  /** Arrival of the feedback, [cycle]; -1 before the first. */
  readonly measuredNs: BigInt64Array;
  /** 1: the stream told the joints something, [cycle]. */
  readonly hasSetpoint: Uint8Array;
  /** [cycle, joint]; NaN without. */
  readonly setpointRad: Float64Array;
  /** What the bridge reported, [cycle, joint]; NaN of joints that did not report within 50 ms. */
  readonly positionRad: Float64Array;
  readonly velocityRadPerS: Float64Array;
}

export interface NativeStreamCounts {
  readonly cycles: number;
  readonly missed: number;
  readonly early: number;
  readonly accepted: number;
  readonly expired: number;
  readonly executedLost: number;
  readonly refused: Readonly<Record<string, number>>;
}

/** From plans to the bus (cpp/motion/motion.h): what the in-process robot and the client of the stream process have in common. */
export interface NativeMotion {
  arm(liveness: bigint): void;
  disarm(): void;
  /** IEC 60204-1: 1 controlled stop, then power removed; 2 controlled stop, power kept. */
  stop(category: 1 | 2): void;
  estop(): void;
  beat(untilNs: bigint): void;
  /** What the bridge's lamp says for three seconds: a number of pm_indication (protocol/README.md). */
  indicate(pattern: number): void;
  /** False when the timeline is full. */
  push(plan: NativePlan): boolean;
  /** What was executed since the last call, oldest first. */
  executed(): NativeExecuted[];
  /** Every cycle since the last call, oldest first, 2048 at most: whoever looks away for longer loses the oldest, which are counted. */
  samples(): NativeSamples;
  status(): NativeMotionStatus;
  counts(): NativeStreamCounts;
}

/** One simulated Damiao motor and how its axis is geared (firmware-bridge/drives/damiao.h). */
export interface NativeDrive {
  readonly motorId: number;
  readonly masterId: number;
  readonly timeoutMs: number;
  readonly positionMaxRad: number;
  readonly velocityMaxRadPerS: number;
  readonly torqueMaxNm: number;
  readonly stiffnessNmPerRad: number;
  readonly dampingNmSPerRad: number;
  readonly ratio: number;
  readonly zeroRad: number;
  readonly velocityShare: number;
}

export interface NativeVirtualRobotOptions {
  readonly motion: NativeMotionOptions;
  readonly drives: readonly NativeDrive[];
  /** Where the joints are at the start, [joints]. */
  readonly positionRad: Float64Array;
  readonly boot: number;
  readonly trackingMaxRad: number;
}

/** Faults to inject; what is left out stays as it is, but mute, deaf and error of an axis are set together. */
export interface NativeFaults {
  readonly axis?: number;
  readonly mute?: boolean;
  readonly deaf?: boolean;
  readonly error?: number;
  readonly frozen?: boolean;
  readonly estop?: boolean;
  readonly halted?: boolean;
  readonly stopped?: boolean;
  readonly busOff?: boolean;
}

/** Timeline, stream, bus, firmware and motors in this process and in virtual time (cpp/rig/virtual_robot.h). */
export interface NativeVirtualRobot extends NativeMotion {
  /**
   * Everything up to `toNs`. `measured` [joints, 3]: position, velocity, torque of the physics. `demand` [joints, 8] is written: is driven, position,
   * velocity, stiffness, damping, torque, torque limit of the motors, and the stream's setpoint (NaN without).
   */
  advance(toNs: bigint, measured: Float64Array, demand: Float64Array): void;
  /** The firmware's counters by number. */
  bridgeCounts(): number[];
  inject(faults: NativeFaults): void;
}

/** What robots need. */
export interface NativeMotionModule {
  /**
   * Knots [knot, joint] of a move from rest to rest, one every `knotNs`, in which every joint keeps its limits and all arrive together; the last knot
   * is the target. Errors: STREAM_POSE.
   */
  planMove(joints: readonly Omit<NativeJoint, 'torqueMaxNm'>[], fromRad: Float64Array, toRad: Float64Array, knotNs: bigint): Float64Array;
  /** Errors (as `code` of the thrown error): STREAM_*, BRIDGE_OPTIONS, RIG_OPTIONS. */
  readonly VirtualRobot: new (
    options: NativeVirtualRobotOptions,
    nowNs: bigint,
  ) => NativeVirtualRobot;
}

/** Durations (cpp/stream/histogram.h), with a relative error of at most 0.1 %. */
export interface NativeHistogram {
  readonly count: number;
  readonly p50Ns: number;
  readonly p99Ns: number;
  readonly p999Ns: number;
  readonly p9999Ns: number;
  readonly maxNs: number;
  /** Pairs: middle of a bucket in nanoseconds, how many values it holds. To add histograms up. */
  readonly buckets: Float64Array;
}

/**
 * The supervisor's end of the memory shared with premotor-stream (cpp/motion/shared_memory.h). Calls fail with STREAM_PROCESS_DETACHED after
 * detach().
 */
export interface NativeStreamClient extends NativeMotion {
  /** Of the process, since its start: wake-up lateness, work per cycle, planned departure of a setpoint to its frames having been sent. */
  histograms(): { readonly wakeUp: NativeHistogram; readonly cycle: NativeHistogram; readonly frameAge: NativeHistogram };
  loopCounts(): {
    readonly cycles: number;
    readonly skipped: number;
    readonly commandsTaken: number;
    readonly commandsRefused: number;
    readonly setsSent: number;
    readonly setsUnsent: number;
  };
  /** What of real time the process did not get, by STREAM_REALTIME_* code. */
  warnings(): { readonly code: string; readonly message: string }[];
  info(): {
    readonly pid: number;
    readonly joints: number;
    readonly periodNs: bigint;
    readonly leadNs: bigint;
    /** 64-bit FNV-1a of the configuration's text. */
    readonly configurationHash: bigint;
    /** Counts the supervisors that this process had. */
    readonly generation: number;
  };
  /** Does the process still run? */
  isAlive(): boolean;
  /** CLOCK_MONOTONIC: the clock of every time here. */
  nowNs(): bigint;
  /** Lets go; the process and the motion go on. Idempotent. */
  detach(): void;
}

export interface NativeStreamModule {
  /**
   * Attaches to the stream process of this path. Errors: STREAM_PROCESS_MISSING, STREAM_PROCESS_VERSION, STREAM_PROCESS_BUSY, STREAM_PROCESS_MEMORY;
   * later STREAM_COMMANDS_FULL.
   */
  readonly StreamClient: new (
    path: string,
  ) => NativeStreamClient;
}
