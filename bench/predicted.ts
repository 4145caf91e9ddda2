/**
 * Predicted control cycles of the released size on known devices: the table of bench/results/predicted-cycles.md. Nothing is measured: the passes are
 * counted by the engine (premotor plan explain) and timed under the devices' ceilings and the assumptions that are printed with them.
 *   npx tsx bench/predicted.ts [--checkpoint bench/released] [--out FILE.md]
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { loadNative } from '../src/native.js';
import { chunkTotal, passTotal } from '../src/plan/ceilings.js';
import { ASSUMPTIONS, DEVICE_NAMES, deviceCeilings } from '../src/plan/devices.js';
import type { PlanPass } from '../src/plan/directory.js';
import { sketchPasses } from '../src/plan/sketch.js';
import { readJob } from '../src/policy/job.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** As published figures of this model have them. */
const CYCLES = [
  { name: '25V/50A guided', video: 25, action: 50, guided: true },
  { name: '3V/10A guided', video: 3, action: 10, guided: true },
  { name: '2V/4A guided', video: 2, action: 4, guided: true },
  { name: '2V/2A unguided', video: 2, action: 2, guided: false },
] as const;
const PRECISIONS = [
  { name: 'bf16', precision: 'bf16', kvCache: 'bf16' },
  { name: 'int8, KV cache int8', precision: 'int8', kvCache: 'int8' },
  { name: 'int4, KV cache int8', precision: 'int4', kvCache: 'int8' },
] as const;

const cell = (ms: number | undefined): string => (ms === undefined ? '' : ms < 100 ? ms.toFixed(1) : ms.toFixed(0));

/** The passes of one cycle at one precision: denoising is stopped one step before its end, the last pass writes the cache (docs/MODEL.md). */
async function passesOf(checkpoint: string, cycle: (typeof CYCLES)[number], held: (typeof PRECISIONS)[number]): Promise<readonly PlanPass[]> {
  const { job } = await readJob(join(checkpoint, 'job.json'));
  const asked = {
    ...job,
    num_inference_steps: cycle.video,
    action_num_inference_steps: cycle.action,
    ...(cycle.guided ? {} : { guidance_scale: 1, action_guidance_scale: 1 }),
  };
  return sketchPasses({ checkpoint, job: asked, precision: held.precision, kvCache: held.kvCache }, loadNative());
}

export async function predictedCycles(checkpoint: string): Promise<string> {
  const cycles: string[] = [];
  const passes: string[] = [];
  for (const held of PRECISIONS) {
    for (const cycle of CYCLES) {
      const counted = await passesOf(checkpoint, cycle, held);
      const totals = DEVICE_NAMES.map((name) => cell(chunkTotal({ passes: [...counted] }, deviceCeilings(name)).ms));
      const { steps, flops } = chunkTotal({ passes: [...counted] }, undefined);
      cycles.push(`| ${held.name} | ${cycle.name} | ${(flops / 1e12).toFixed(1)} | ${steps} | ${totals.join(' | ')} |`);
      if (cycle.name !== '2V/4A guided') continue;
      for (const pass of counted) {
        const { flops: each, weightBytes, cacheBytes } = passTotal(pass, undefined);
        const times = DEVICE_NAMES.map((name) => cell(passTotal(pass, deviceCeilings(name)).ms));
        const counts = [(each / 1e12).toFixed(2), ((weightBytes + cacheBytes) / 1e9).toFixed(2)];
        passes.push(`| ${[held.name, `${pass.perChunk} x ${pass.name}`, ...counts, ...times].join(' | ')} |`);
      }
    }
  }
  const titles = DEVICE_NAMES.map((name) => deviceCeilings(name).name.replace(', predicted', ''));
  const rule = titles.map(() => '---:').join('|');
  return [
    '# Predicted cycles at the released size',
    '',
    'Made by `npx tsx bench/predicted.ts`. Predictions, not measurements: nothing ran on these devices. A chunk is 640 ms of motion; the KV',
    'cache is full; encoding the pictures of three cameras and the commit are in every cycle. Milliseconds.',
    '',
    `| weights | cycle | TFLOP | steps | ${titles.join(' | ')} |`,
    `|---|---|---:|---:|${rule}|`,
    ...cycles,
    '',
    'Passes of the 2V/4A cycle:',
    '',
    `| weights | pass | TFLOP | GB | ${titles.join(' | ')} |`,
    `|---|---|---:|---:|${rule}|`,
    ...passes,
    '',
    'Assumed:',
    ...ASSUMPTIONS.map((line) => `- ${line}`),
    ...DEVICE_NAMES.map((name) => {
      const { name: title, gigabytesPerSecond, gigaflops, launchMs = 0 } = deviceCeilings(name);
      const rates = (['bf16', 'int8', 'f32'] as const).map((one) => `${one} ${((gigaflops[one] ?? 0) / 1000).toFixed(1)}`);
      const launch = `${(1000 * launchMs).toFixed(0)} us a step`;
      return `- ${title.replace(', predicted', '')}: ${gigabytesPerSecond} GB/s, ${rates.join(', ')} TFLOP/s, ${launch}`;
    }),
    '',
  ].join('\n');
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({ options: { checkpoint: { type: 'string', default: join(root, 'bench', 'released') }, out: { type: 'string' } } });
  const text = await predictedCycles(resolve(values.checkpoint));
  if (values.out !== undefined) {
    writeFileSync(values.out, text);
    process.stderr.write(`${values.out}: ${readFileSync(values.out).length} bytes\n`);
  } else process.stdout.write(text);
}
