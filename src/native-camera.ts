/** Types of what the addon exports for Linux cameras (cpp/addon/camera_object). Types only: native.ts loads the addon. */

export interface NativeCameraOptions {
  readonly path: string;
  /** 0: the camera's own. */
  readonly width: number;
  readonly height: number;
  readonly rateHz: number;
  /** Default: mjpeg where the camera can, else yuyv. */
  readonly format?: 'mjpeg' | 'yuyv';
}

export interface NativeCameraFrame {
  /** Counts the frames that were kept, from 1. */
  readonly number: number;
  /** CLOCK_MONOTONIC, of the driver. */
  readonly capturedNs: bigint;
  readonly sequence: number;
  /** RGB, [height, width, 3], of a yuyv camera; a JPEG file of an mjpeg one. */
  readonly data: Uint8Array;
}

/** A camera with a thread of its own that keeps the newest four frames (cpp/camera/capture.h). */
export interface NativeCamera {
  /** Errors: CAMERA_DEVICE_MISSING, CAMERA_DEVICE_BUSY, CAMERA_DEVICE, CAMERA_FORMAT. */
  open(options: NativeCameraOptions): Promise<void>;
  /** What driver and we agreed on; after open(). */
  agreed(): { readonly format: 'mjpeg' | 'yuyv'; readonly width: number; readonly height: number; readonly rateHz: number; readonly card: string };
  /** The kept frames with a number above `after`, oldest first. */
  frames(after: number): NativeCameraFrame[];
  /** Resolves when there is a newer frame than `after`, when none can come, and when the time is over. */
  wait(after: number, timeoutMs: number): Promise<void>;
  counts(): {
    readonly frames: number;
    /** Given back unseen: flagged by the driver, or too short. */
    readonly damaged: number;
    /** Gaps in the driver's sequence. */
    readonly dropped: number;
    /** Given back unseen: stamps that did not advance. */
    readonly backwards: number;
    readonly timeouts: number;
  };
  /** Errors: CAMERA_UNPLUGGED, CAMERA_TIMESTAMPS, CAMERA_DEVICE, once no more frames come. */
  check(): void;
  /** Idempotent. */
  close(): Promise<void>;
}

/** What a device says about itself. */
export interface NativeCameraOffer {
  readonly path: string;
  readonly card: string;
  readonly driver: string;
  readonly bus: string;
  /** False: it carries no pictures that could be streamed. */
  readonly isCapture: boolean;
  readonly formats: readonly {
    readonly code: string;
    readonly description: string;
    readonly sizes: readonly {
      readonly width: number;
      readonly height: number;
      /** The largest of a range. */
      readonly isRange: boolean;
      readonly ratesHz: readonly number[];
    }[];
  }[];
}

export interface NativeCameraModule {
  readonly Camera: new () => NativeCamera;
  /** Changes nothing in the device. Errors: CAMERA_DEVICE_MISSING, CAMERA_DEVICE_BUSY, CAMERA_DEVICE. */
  lookAtCamera(path: string): Promise<NativeCameraOffer>;
}
