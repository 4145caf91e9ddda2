/**
 * `premotor camera`: which cameras this machine has, and what one of them sees. It changes nothing in a camera but the format of the picture that it
 * takes. Owned by the command line.
 */
import { existsSync, readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { V4l2Camera } from '../cameras/v4l2.js';
import { PremotorError } from '../errors.js';
import { callNative, type NativeCameraOffer } from '../native.js';
import { writePng } from '../recording/animation.js';
import { type CliContext, printResult } from './context.js';

export interface ShowOptions {
  readonly out: string;
  readonly size?: { readonly width: number; readonly height: number };
  readonly rate?: number;
  readonly format?: 'mjpeg' | 'yuyv';
  readonly json: boolean;
}

const DEVICES = '/dev';
/** Frames that are let go first: many cameras find their exposure in the first half second. */
const SETTLING_FRAMES = 10;
/** No longer than this for all of them. */
const SETTLING_MS = 3000;

/** The machine's video devices in the order of their numbers. */
export function videoDevices(folder: string = DEVICES): readonly string[] {
  if (!existsSync(folder)) return [];
  const numbers = readdirSync(folder).flatMap((name) => /^video(\d{1,4})$/.exec(name)?.[1] ?? []);
  return numbers
    .map(Number)
    .sort((a, b) => a - b)
    .map((number) => `${folder}/video${number}`);
}

const rateText = (hz: number): string => String(Number(hz.toFixed(2)));

/** A device in words, several lines. */
export function describeOffer({ path, card, driver, isCapture, formats }: NativeCameraOffer): string {
  const head = `${path}  ${card} (${driver})`;
  if (!isCapture) return `${head}: no pictures`;
  const lines = formats.map(({ code, description, sizes }) => {
    const isUsed = code === 'MJPG' || code === 'YUYV';
    const shown = sizes.map(({ width, height, isRange, ratesHz }) => {
      const rates = ratesHz.length === 0 ? '' : ` at ${ratesHz.map(rateText).join(', ')} Hz`;
      return `${isRange ? 'up to ' : ''}${width}x${height}${rates}`;
    });
    return `  ${code}  ${description}${isUsed ? '' : ' (not used)'}${shown.map((line) => `\n        ${line}`).join('')}`;
  });
  return [head, ...lines].join('\n');
}

/** Errors are part of the list: one device that cannot be opened hides no other. */
export async function runList(options: { readonly json: boolean }, context: CliContext, folder: string = DEVICES): Promise<void> {
  const found: (NativeCameraOffer | { readonly path: string; readonly code: string; readonly message: string })[] = [];
  const native = context.loadNative();
  for (const path of videoDevices(folder)) {
    try {
      found.push(await callNative(() => native.lookAtCamera(path)));
    } catch (error) {
      if (!(error instanceof PremotorError)) throw error;
      found.push({ path, code: error.code, message: error.message });
    }
  }
  printResult(context, options.json, { cameras: found }, () => {
    if (found.length === 0) return `No camera: there is no ${folder}/video*. Connect one, or see docs/CAMERAS.md for pictures from elsewhere.`;
    return `${found.map((one) => ('code' in one ? `${one.path}  ${one.code}: ${one.message}` : describeOffer(one))).join('\n')}`;
  });
}

/** Takes one picture. Errors: those of opening a camera, FILE_WRITE. */
export async function runShow(device: string, options: ShowOptions, context: CliContext): Promise<void> {
  const { size, rate, format } = options;
  // Nothing else runs here: the machine's clock is the robot's.
  const clock = { isReal: true, nowNs: () => process.hrtime.bigint(), fromMonotonicNs: (ns: bigint) => ns };
  const camera = await V4l2Camera.open({
    camera: device,
    device,
    ...(size ?? {}),
    ...(rate === undefined ? {} : { rateHz: rate }),
    ...(format === undefined ? {} : { format }),
    clock,
    native: context.loadNative(),
  });
  try {
    await camera.passFrames(SETTLING_FRAMES, SETTLING_MS);
    const [frame] = await camera.capture();
    if (!frame) {
      const [expected, found] = ['a picture', 'frames that cannot be decoded'];
      throw new PremotorError('CAMERA_SILENT', `The camera ${device} gives no picture: expected ${expected}, found ${found}. Try --format yuyv.`, {
        file: device,
        expected,
        found,
      });
    }
    const path = resolve(options.out);
    await writePng(path, frame);
    const { card, format: agreed, rateHz } = camera.agreed;
    const ageMs = Number(process.hrtime.bigint() - frame.capturedAtNs) / 1e6;
    const { width, height } = frame;
    const document = { file: path, device, card, width, height, format: agreed, rateHz, ageMs, counts: camera.counts() };
    printResult(
      context,
      options.json,
      document,
      () => `${path}: ${width} x ${height}, ${agreed}${rateHz ? ` at ${rateText(rateHz)} Hz` : ''}, ${card}`,
    );
  } finally {
    await camera.close();
  }
}

function pixels(text: string): { width: number; height: number } {
  const match = /^(\d{1,5})x(\d{1,5})$/.exec(text);
  const [width, height] = [Number(match?.[1] ?? 0), Number(match?.[2] ?? 0)];
  if (width >= 1 && width <= 16_384 && height >= 1 && height <= 16_384) return { width, height };
  throw new InvalidArgumentError('Expected WIDTHxHEIGHT in pixels, such as 640x480.');
}

function hertz(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value > 0 && value <= 1000) return value;
  throw new InvalidArgumentError('Expected a number above 0 and up to 1000.');
}

/** Adds `premotor camera` and its subcommands to the program. */
export function registerCamera(program: Command, context: CliContext): void {
  const camera = program.command('camera').description('the cameras of this machine: list them, take a picture');
  camera
    .command('list')
    .description('every video device with its formats, sizes and rates')
    .option('--json', 'print one JSON document', false)
    .action(async (options: { json: boolean }) => runList(options, context));
  camera
    .command('show')
    .description('take one picture with a camera and write it as a PNG')
    .argument('<device>', 'such as /dev/video0')
    .option('-o, --out <file>', 'the picture', 'camera.png')
    .option('--size <wxh>', "pixels, such as 640x480 (default: the camera's own)", pixels)
    .option('--rate <hz>', "pictures per second (default: the camera's own)", hertz)
    .addOption(new Option('--format <format>', 'what the camera sends (default: mjpeg where it can)').choices(['mjpeg', 'yuyv']))
    .option('--json', 'print one JSON document', false)
    .action(async (device: string, options: ShowOptions) => runShow(device, options, context));
}
