/**
 * The public face of the package: loadPolicy, the error type and the contract's types. Owned by everyone who depends on premotor; nothing inside
 * the package imports it.
 */

export type { CameraInfo, FrameSource } from './cameras/source.js';
/** The control cycle over a robot and cameras of your own (docs/CONTROL.md). */
export { type ActionMap, EndEffectorActions, type GripperScale } from './control/action-map.js';
export { ControlCycle, type CycleOptions } from './control/cycle.js';
export type { CycleEvent, CycleReport, EpisodeOptions } from './control/events.js';
export type { ModeName } from './control/modes/mode.js';
export type { PremotorErrorDetails } from './errors.js';
export { PremotorError } from './errors.js';
/** Kinematics of arms for end-effector policies (docs/KINEMATICS.md). */
export { ArmKinematics, type ArmOptions, type InverseOutcome, type InverseSettings, type InverseSolution } from './kinematics/arm-kinematics.js';
export * from './kinematics/end-effector.js';
export { type Pose, type Quaternion, quaternionFromRpy, type Vector3 } from './kinematics/pose.js';
export { type ChainJoint, type JointKind, type KinematicChain, parseUrdf, type UrdfOptions } from './kinematics/urdf.js';
/** Plans (docs/PLAN.md). */
export { type BuildPlanOptions, type BuiltPlan, buildPlan, verifyPlan } from './plan/build.js';
export type * from './policy/contract.js';
export { loadPolicy } from './policy/load.js';
export { joinLatents } from './policy/tensor.js';
/** Encoder and decoder of the bridge protocol (protocol/README.md), for tools. */
export * as bridgeFrames from './robot/bridge-frames.js';
export type { ExecutedKnot, Joint, Plan, Robot, RobotState, StopCategory } from './robot/robot.js';
export { type StreamConfiguration, StreamProcess, type StreamProcessOptions, type StreamWorkspace, workspaceOf } from './robot/stream-process.js';
export { openStreamRobot, type StreamRobot, type StreamRobotOptions } from './robot/stream-robot.js';
