/**
 * Camera pictures from files for `premotor infer`: which file belongs to which camera of the job, and decoding to RGB. Owned by infer.ts; resizing
 * to the model's size is the engine's work and never done here.
 */
import { decodePicture } from '../cameras/pictures.js';
import { PremotorError } from '../errors.js';
import type { Frame } from '../policy/contract.js';
import { UsageError } from './context.js';

/**
 * Pairs `camera=file` arguments with the job's cameras. A camera may be named by its key or by the key's last part ("cam_high" for
 * "observation.images.cam_high"); with one camera the name may be left out. Errors: USAGE.
 */
export function assignPictures(args: readonly string[], cameras: readonly string[]): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  for (const arg of args) {
    const equals = arg.indexOf('=');
    const only = cameras.length === 1 ? cameras[0] : undefined;
    const named = equals > 0 ? matchCamera(arg.slice(0, equals), cameras) : undefined;
    // A file name may hold "=" itself: with one camera, an unknown name in front is part of the file's name.
    const camera = named ?? only;
    if (camera === undefined) {
      const found = equals > 0 ? `"${arg.slice(0, equals)}"` : `"${arg}" without a name`;
      throw new UsageError(`--image ${arg}: expected CAMERA=FILE with a camera of the job (${cameras.join(', ')}), found ${found}.`);
    }
    if (files.has(camera)) throw new UsageError(`--image ${arg}: the camera ${camera} has a picture already (${files.get(camera)}).`);
    files.set(camera, named === undefined ? arg : arg.slice(equals + 1));
  }
  const missing = cameras.filter((camera) => !files.has(camera));
  if (missing.length > 0)
    throw new UsageError(`The job needs a picture of every camera: add ${missing.map((camera) => `--image ${camera}=FILE`).join(' ')}.`);
  return files;
}

function matchCamera(name: string, cameras: readonly string[]): string | undefined {
  if (cameras.includes(name)) return name;
  const ends = cameras.filter((camera) => camera.endsWith(`.${name}`) || camera.endsWith(`/${name}`));
  return ends.length === 1 ? ends[0] : undefined;
}

/** Decodes one file of any format that sharp reads: turned upright by its EXIF, transparency removed, grey made RGB. Errors: IMAGE_UNREADABLE. */
export async function loadPicture(camera: string, file: string): Promise<Frame> {
  try {
    return { camera, ...(await decodePicture(file)), capturedAtNs: process.hrtime.bigint() };
  } catch (cause) {
    const found = (cause as Error).message;
    const message = `The picture ${file} of camera ${camera} cannot be read: ${found}. Give a PNG, JPEG, WebP, TIFF, GIF or AVIF file.`;
    throw new PremotorError('IMAGE_UNREADABLE', message, { file, expected: 'a picture', found, cause });
  }
}
