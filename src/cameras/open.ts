/**
 * Opens the cameras that a configuration names, beside the robot's own. Owned by the rig. Every source is checked before anything moves; when one
 * cannot be opened, none stays open.
 */
import type { RobotConfig } from '../config/schema.js';
import { PremotorError } from '../errors.js';
import type { NativeCameraModule } from '../native.js';
import type { CameraClock } from './clock.js';
import { CombinedCameras } from './combined.js';
import { openPictureFiles } from './files.js';
import { PlayedCamera } from './played.js';
import { openRecording } from './recording.js';
import type { CameraInfo, FrameSource } from './source.js';
import { V4l2Camera } from './v4l2.js';
import { PushedCameras } from './websocket.js';

export type CameraSources = RobotConfig['cameras']['sources'];
type CameraSource = CameraSources[string];

export interface OpenCamerasParts {
  /** The robot's own cameras. */
  readonly own: FrameSource;
  readonly clock: CameraClock;
  /** Frames per second of sources that name no rate. */
  readonly rateHz: number;
  readonly loadNative: () => NativeCameraModule;
  /** Where pictures can be pushed. */
  readonly onNotice: (text: string) => void;
}

/** Sources that stamp with the machine's clock. */
const LIVE: readonly CameraSource['type'][] = ['v4l2', 'websocket'];

/**
 * The names of cameras that the robot itself has to have. `own`: those that it can have. Errors: CAMERA_SOURCE, when a source names a camera of the
 * robot that there is not.
 */
export function ownCameras(sources: CameraSources, own: readonly string[]): readonly string[] {
  for (const [camera, { type }] of Object.entries(sources)) {
    if (type !== 'sim' || own.includes(camera)) continue;
    throw sourceError(camera, `one of the robot's own cameras (${own.join(', ')})`, camera, 'Correct its name, or give it another type.');
  }
  return own.filter((camera) => (sources[camera]?.type ?? 'sim') === 'sim');
}

/**
 * Errors: CAMERA_SOURCE, CAMERA_PACE, CAMERA_FRAME_SIZE, and those of the sources: CAMERA_FILE, CAMERA_RECORDING, CAMERA_PORT, CAMERA_DEVICE_*,
 * CAMERA_FORMAT, CAMERA_SILENT.
 */
export async function openCameras(sources: CameraSources, parts: OpenCamerasParts): Promise<FrameSource> {
  const named = Object.entries(sources).filter(([, { type }]) => type !== 'sim');
  if (named.length === 0) return parts.own;
  for (const [camera, source] of named) checkPace(camera, source, parts.clock);
  const opened = new Map<string, FrameSource>();
  try {
    for (const [camera, source] of named) if (source.type !== 'websocket') opened.set(camera, await openOne(camera, source, parts));
    for (const [camera, server] of await openPushed(named, parts)) opened.set(camera, server);
  } catch (error) {
    await Promise.allSettled([...new Set(opened.values())].map((source) => source.close()));
    throw error;
  }
  return new CombinedCameras(parts.own, opened);
}

function checkPace(camera: string, { type }: CameraSource, clock: CameraClock): void {
  if (clock.isReal || !LIVE.includes(type)) return;
  const message =
    `Camera ${camera} (${type}) sees the real world, and the robot's time is virtual: expected pace real, found virtual. ` +
    'Set robot.pace to real, or play files or a recording.';
  throw new PremotorError('CAMERA_PACE', message, {
    field: `cameras.sources.${camera}.type`,
    expected: 'robot.pace: real',
    found: 'robot.pace: virtual',
  });
}

async function openOne(camera: string, source: CameraSource, { clock, rateHz, loadNative }: OpenCamerasParts): Promise<FrameSource> {
  if (source.type === 'v4l2') {
    const { width, height, format, frame_rate_hz } = source;
    const wanted = {
      ...(width === undefined ? {} : { width }),
      ...(height === undefined ? {} : { height }),
      ...(format === undefined ? {} : { format }),
    };
    const device = required(camera, source, 'device');
    return V4l2Camera.open({ camera, device, ...wanted, rateHz: frame_rate_hz ?? rateHz, clock, native: loadNative() });
  }
  const path = required(camera, source, 'path');
  const pictures = source.type === 'file' ? await openPictureFiles(path) : await openRecording(path, source.topic ?? camera);
  const { width = pictures.width, height = pictures.height } = source;
  if (width !== pictures.width || height !== pictures.height) {
    const [expected, found] = [`${width} x ${height}`, `${pictures.width} x ${pictures.height}`];
    const advice = 'Correct width and height, or leave them out.';
    const message = `Camera ${camera}: the pictures of ${path} have another size: expected ${expected}, found ${found}. ${advice}`;
    throw new PremotorError('CAMERA_FRAME_SIZE', message, { field: `cameras.sources.${camera}.width`, expected, found });
  }
  return new PlayedCamera(pictures, { camera, rateHz: source.frame_rate_hz ?? rateHz, loops: source.loop, clock });
}

/** Cameras that name the same port share its server; port 0 is a port for each. */
async function openPushed(named: readonly (readonly [string, CameraSource])[], parts: OpenCamerasParts): Promise<ReadonlyMap<string, PushedCameras>> {
  const groups: { readonly port: number; readonly cameras: CameraInfo[] }[] = [];
  for (const [camera, source] of named) {
    if (source.type !== 'websocket') continue;
    const info = { camera, width: required(camera, source, 'width'), height: required(camera, source, 'height') };
    const group = source.port === 0 ? undefined : groups.find(({ port }) => port === source.port);
    if (group) group.cameras.push(info);
    else groups.push({ port: source.port, cameras: [info] });
  }
  const opened = new Map<string, PushedCameras>();
  try {
    for (const { port, cameras } of groups) {
      const server = await PushedCameras.open({ port, cameras, clock: parts.clock });
      for (const { camera } of cameras) opened.set(camera, server);
      parts.onNotice(`pictures of ${cameras.map(({ camera }) => camera).join(', ')} are taken at ${server.url}`);
    }
  } catch (error) {
    await Promise.allSettled([...new Set(opened.values())].map((server) => server.close()));
    throw error;
  }
  return opened;
}

function required<K extends 'device' | 'path' | 'width' | 'height'>(camera: string, source: CameraSource, key: K): NonNullable<CameraSource[K]> {
  const value = source[key];
  if (value !== undefined && value !== null) return value;
  throw sourceError(camera, `\`${key}\``, 'none', `A camera of type ${source.type} needs it.`, key);
}

function sourceError(camera: string, expected: string, found: string, advice: string, key = 'type'): PremotorError {
  const message = `The source of camera ${camera} is wrong: expected ${expected}, found ${found}. ${advice}`;
  return new PremotorError('CAMERA_SOURCE', message, { field: `cameras.sources.${camera}.${key}`, expected, found });
}
