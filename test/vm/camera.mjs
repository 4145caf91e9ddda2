/**
 * Runs inside the guest of `npm run test:vm` (guest.py): opens a video device as an episode does and prints one JSON document of what came. The
 * kernel's vivid driver stands for a camera; guest.py judges.
 */
import { pathToFileURL } from 'node:url';

const [root, device, width, height, frames] = process.argv.slice(2);
const load = (path) => import(pathToFileURL(`${root}/dist/${path}`).href);
const { V4l2Camera } = await load('cameras/v4l2.js');
const { loadNative } = await load('native.js');

const clock = { isReal: true, nowNs: () => process.hrtime.bigint(), fromMonotonicNs: (ns) => ns };
const beforeNs = process.hrtime.bigint();
const native = loadNative();
const options = { camera: 'eye', device, width: Number(width), height: Number(height), rateHz: 15, format: 'yuyv', clock, native };
const camera = await V4l2Camera.open(options);
/** The code that opening it fails with. */
const failure = async (change) => {
  try {
    await (await V4l2Camera.open({ ...options, ...change })).close();
    return 'opened';
  } catch (error) {
    return error.code;
  }
};
const second = await failure({});
const stamps = new Map();
for (let looks = 0; stamps.size < Number(frames) && looks < 200; looks++) {
  await camera.passFrames(1, 5000);
  await camera.capture();
  for (const frame of camera.history()) stamps.set(frame.capturedAtNs, frame);
}
const seen = [...stamps.keys()].sort((a, b) => (a < b ? -1 : 1));
const newest = stamps.get(seen.at(-1));
// One pixel in the middle of each of the eight bars, in the last row, which no text covers.
const bars = Array.from({ length: 8 }, (_, bar) => {
  const x = Math.round((newest.width * (bar + 0.5)) / 8);
  const at = 3 * ((newest.height - 1) * newest.width + x);
  return [...newest.data.subarray(at, at + 3)];
});
const result = {
  width: newest.width,
  height: newest.height,
  bytes: newest.data.length,
  frames: seen.length,
  isMonotonic: seen.every((ns, index) => index === 0 || ns > seen[index - 1]),
  periodsMs: seen.slice(1).map((ns, index) => Number(ns - seen[index]) / 1e6),
  isAfterOpen: seen[0] > beforeNs,
  isPast: seen.at(-1) < process.hrtime.bigint(),
  bars,
  second,
  refused: '',
  agreed: camera.agreed,
  counts: camera.counts(),
};
await camera.close();
await camera.close();
result.refused = await failure({ width: 333, height: 77 });
process.stdout.write(`${JSON.stringify(result)}\n`);
