/**
 * The robot's clock as camera sources see it: what stamps are made of. Types only; the robot owns the clock.
 */
export interface CameraClock {
  /** It runs with the machine's monotonic clock. False: virtual time, which passes while somebody waits for the robot and never otherwise. */
  readonly isReal: boolean;
  /** The robot's time now. */
  nowNs(): bigint;
  /** CLOCK_MONOTONIC of this machine, in nanoseconds, as a time of the robot. Only where `isReal`. */
  fromMonotonicNs(monotonicNs: bigint): bigint;
}
