import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Command } from 'commander';
import t, { type Test } from 'tap';
import { type PromptCommandOptions, type PromptRow, registerPrompt, runPrompt } from '../../src/cli/prompt.js';
import { checkpointHash, textHash } from '../../src/text/checkpoint-hash.js';
import { embedPrompt } from '../../src/text/embeddings.js';
import { promptsFolder, textMode } from '../../src/text/prompt-cache.js';
import { fakeEncoder, writeCheckpoint } from '../text/fixtures.js';

interface Run {
  readonly options: PromptCommandOptions;
  readonly native: ReturnType<typeof fakeEncoder>;
  readonly printed: string[];
  readonly progress: string[];
  readonly run: (change?: Partial<PromptCommandOptions>) => Promise<readonly PromptRow[]>;
}

function setUp(t: Test): Run {
  const checkpoint = writeCheckpoint(join(t.testdir({}), 'checkpoint'));
  const options: PromptCommandOptions = { checkpoint, prompt: ['Pick up the cube'], precision: 'f32', threads: 1, cache: false, json: false };
  const native = fakeEncoder();
  const printed: string[] = [];
  const progress: string[] = [];
  const dependencies = { native: () => native, out: (text: string) => printed.push(text), progress: (text: string) => progress.push(text) };
  return { options, native, printed, progress, run: (change = {}) => runPrompt({ ...options, ...change }, dependencies) };
}

t.test('what it writes is what a robot without encoder finds', async (t) => {
  const { options, printed, progress, run } = setUp(t);
  const file = join(t.testdirName, 'prompts.txt');
  writeFileSync(file, 'Drop  it\r\n\n  \nPick up the cube\n');
  const rows = await run({ file });
  t.same(
    rows.map((row) => row.cleaned),
    ['Pick up the cube', 'Drop it', ''],
    'each once, and the empty prompt for guidance',
  );
  t.same(readdirSync(promptsFolder(options.checkpoint)).sort(), rows.map((row) => basename(row.file)).sort());
  t.match(printed, [/prompt +tokens +from +ms\n"Pick up the cube" +\d+ +encoder/]);
  t.match(progress[0], '[1/3] "Pick up the cube"');

  for (const name of ['text_encoder', 'tokenizer']) rmSync(join(options.checkpoint, name), { recursive: true });
  for (const { prompt, tokens } of rows) {
    const native = (): never => t.fail('no encoder is run') as never;
    const found = await embedPrompt({
      checkpoint: options.checkpoint,
      prompt,
      mode: textMode('f32', 'float32'),
      threads: 1,
      cacheDir: false,
      native,
    });
    t.match(found, { source: 'checkpoint', count: tokens });
  }
});

t.test('the job chooses the rounding', async (t) => {
  const { native, run } = setUp(t);
  const job = join(t.testdirName, 'job.json');
  const deployed = (): boolean | undefined => native.calls.at(-1)?.deployedBf16;
  await run({ precision: 'bf16' });
  t.equal(deployed(), true, 'released checkpoints are deployed in bfloat16');
  await run({ precision: 'bf16', paramDtype: 'float32' });
  t.equal(deployed(), false);
  writeFileSync(job, '{"param_dtype": "float32"}');
  await run({ precision: 'bf16', job });
  t.equal(deployed(), false);
  writeFileSync(job, '{"param_dtype": "bfloat16"}');
  await run({ precision: 'bf16', job });
  t.equal(deployed(), true);
  await run({ precision: 'f32', job });
  t.equal(deployed(), false, 'float32 never rounds');
  await t.rejects(run({ precision: 'bf16', job, paramDtype: 'float32' }), { code: 'TEXT_INVALID' }, 'two answers');
  for (const content of ['{"param_dtype": "float16"}', '{}', 'null', '{']) {
    writeFileSync(job, content);
    await t.rejects(run({ job }), { code: 'TEXT_INVALID' }, content);
  }
  await t.rejects(run({ job: join(t.testdirName, 'nothing.json') }), { code: 'TEXT_INVALID' }, 'no file');
});

t.test('JSON', async (t) => {
  const { options, printed, run } = setUp(t);
  await run({ json: true, prompt: ['donâ€™t'] });
  const result = JSON.parse(printed.join('\n'));
  t.match(result, {
    checkpoint: options.checkpoint,
    checkpointHash: await checkpointHash(options.checkpoint),
    textHash: await textHash(options.checkpoint),
    mode: 'f32',
    folder: promptsFolder(options.checkpoint),
    prompts: [
      { prompt: 'donâ€™t', source: 'encoder', warnings: [/wrongly decoded/] },
      { prompt: '', tokens: 1 },
    ],
  });
});

t.test('prompts for another checkpoint are replaced, not refused', async (t) => {
  const { options, run } = setUp(t);
  await run();
  writeCheckpoint(options.checkpoint, 2);
  await t.resolves(run());
  const native = fakeEncoder();
  const found = await embedPrompt({ ...options, prompt: 'Pick up the cube', mode: textMode('f32', 'float32'), native, cacheDir: false });
  t.equal(found.source, 'checkpoint');
});

t.test('nothing to do, or nothing to do it with', async (t) => {
  const { options, run } = setUp(t);
  await t.rejects(run({ prompt: [] }), { code: 'TEXT_INVALID', message: /--prompt/ });
  await t.rejects(run({ file: join(t.testdirName, 'nothing.txt') }), { code: 'TEXT_INVALID' });
  rmSync(join(options.checkpoint, 'text_encoder'), { recursive: true });
  await t.rejects(run(), { code: 'TEXT_ENCODER_MISSING' });
  rmSync(join(options.checkpoint, 'vae'), { recursive: true });
  await t.rejects(run(), { code: 'CHECKPOINT_MISSING_FILE' });
});

t.test('the command line', async (t) => {
  const program = new Command().exitOverride().configureOutput({ writeErr: () => undefined, writeOut: () => undefined });
  registerPrompt(program);
  for (const command of program.commands) command.exitOverride().configureOutput({ writeErr: () => undefined });
  const parse = (...words: string[]): Promise<unknown> => program.parseAsync(['prompt', ...words], { from: 'user' });
  await t.rejects(parse(), { code: 'commander.missingMandatoryOptionValue' });
  await t.rejects(parse('--checkpoint', 'x', '--precision', 'int3'), { code: 'commander.invalidArgument' });
  await t.rejects(parse('--checkpoint', 'x', '--threads', '0'), { code: 'commander.invalidArgument' });
  await t.rejects(parse('--checkpoint', join(t.testdir({}), 'none'), '--prompt', 'a', '--prompt', 'b'), { code: 'CHECKPOINT_MISSING_FILE' });
});
