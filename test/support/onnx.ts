/** Folders with exported policies for tests, and whether ONNX Runtime is there to run them. Not a test itself. */
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { echoModel, type ValueSpec } from './onnx-model.js';

/** The shipped policy. */
export const ACT_TOUCH = fileURLToPath(new URL('../../models/act-touch', import.meta.url));

const isInstalled = await import('onnxruntime-node').then(
  () => true,
  () => false,
);
/** For tests that run models: a reason to skip them, or false. */
export const withoutRuntime: string | false = isInstalled
  ? false
  : 'SKIPPED: EXPORTED POLICIES ARE NOT RUN: onnxruntime-node is not installed. Run "npm install onnxruntime-node".';

export type Json = Record<string, unknown>;

/** A mapping of a small model: a camera of 4 x 2 pixels, two joints, chunks of 2 x 4 actions. Members that are undefined are left out. */
export function smallMapping(changes: Json = {}): Json {
  const mapping = {
    format: 'premotor-onnx',
    version: 1,
    frame_chunk_size: 2,
    action_per_frame: 4,
    inputs: { image: cameraInput() },
    output: { name: 'actions', layout: '1HD', channels: [0, 1] },
    ...changes,
  };
  return JSON.parse(JSON.stringify(mapping)) as Json;
}

export function cameraInput(changes: Json = {}): Json {
  return { from: 'camera', camera: 'observation.images.cam_front', layout: 'NCHW', height: 2, width: 4, dtype: 'f32', ...changes };
}

export const imageSpec = (changes: Partial<ValueSpec> = {}): ValueSpec => ({ name: 'image', type: 'float32', shape: [1, 3, 2, 4], ...changes });

/** Echoes its image as 12 actions of 2 channels. */
export const imageEcho = (): Uint8Array => echoModel([imageSpec()], 'image', [1, 12, 2]);

/** A new folder with model.onnx and job.json; the caller removes nothing: it lies in the system's temporary folder. */
export function policyFolder(model: Uint8Array | undefined, mapping: unknown, dir = mkdtempSync(join(tmpdir(), 'premotor-onnx-'))): string {
  if (model) writeFileSync(join(dir, 'model.onnx'), model);
  if (mapping !== undefined) writeFileSync(join(dir, 'job.json'), typeof mapping === 'string' ? mapping : JSON.stringify(mapping));
  return dir;
}
