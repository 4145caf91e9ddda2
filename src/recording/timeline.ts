/**
 * The story of a recording: what happened, one line each, in the order of time. Owned by `premotor record play`; it waits for nothing and prints
 * nothing.
 */
import { z } from 'zod';
import { PremotorError } from '../errors.js';
import type { McapMessage, McapReader, ReadOptions } from './mcap-reader.js';
import { TOPICS } from './schemas.js';

/** Lines of one story. */
const LINES_MAX = 200_000;

export interface Line {
  readonly timeNs: bigint;
  /** Seconds from the first line. */
  readonly atS: number;
  readonly topic: string;
  readonly text: string;
}

const logSchema = z.object({ level: z.int(), message: z.string(), name: z.string() });
const callSchema = z.object({ number: z.number(), method: z.string(), error: z.string(), cache_checksum: z.string(), cache_committed: z.number() });
const timingSchema = z.object({
  chunk: z.number(),
  predict_ms: z.number(),
  execute_ms: z.number(),
  commit_wall_ms: z.number(),
  clamped_knots: z.number(),
  knots: z.number(),
});
const faultSchema = z.object({ code: z.string(), message: z.string() });
const statusSchema = z.object({ state: z.string(), stream: z.string(), link: z.string(), bridge: z.string() });

const LEVELS = ['', 'debug', 'info', 'warning', 'error', 'fatal'];

const texts: Readonly<Record<string, (value: unknown) => string>> = {
  [TOPICS.log.topic]: (value) => {
    const { level, message, name } = logSchema.parse(value);
    return `${LEVELS[level] ?? level} ${name}: ${message}`;
  },
  [TOPICS.calls.topic]: (value) => {
    const { number, method, error, cache_checksum: checksum, cache_committed: committed } = callSchema.parse(value);
    return `policy: call ${number} ${method}${error === '' ? '' : ` failed with ${error}`}, cache ${checksum}, ${committed} entries committed`;
  },
  [TOPICS.timing.topic]: (value) => {
    const { chunk, predict_ms: predict, execute_ms: execute, commit_wall_ms: commit, clamped_knots: clamped, knots } = timingSchema.parse(value);
    const times = `predict ${predict.toFixed(0)} ms, execute ${execute.toFixed(0)} ms, commit ${commit.toFixed(0)} ms`;
    return `chunk ${chunk}: ${times}, clamped ${clamped}/${knots}`;
  },
  [TOPICS.faults.topic]: (value) => {
    const { code, message } = faultSchema.parse(value);
    return `FAULT ${code}: ${message}`;
  },
  [TOPICS.status.topic]: (value) => {
    const { state, stream, link, bridge } = statusSchema.parse(value);
    return `${state}, stream ${stream}, link ${link}, bridge ${bridge}`;
  },
};

/** What a story is told from. */
const STORY_TOPICS: readonly string[] = Object.keys(texts);

/** Errors: ABORTED, MCAP_DAMAGED, MCAP_UNSUPPORTED. Messages that say nothing sensible are left out. */
export async function storyOf(reader: McapReader, options: Omit<ReadOptions, 'topics'> = {}): Promise<readonly Line[]> {
  const found: Omit<Line, 'atS'>[] = [];
  for await (const message of reader.messages({ ...options, topics: STORY_TOPICS })) {
    const text = textOf(message);
    if (text === undefined) continue;
    if (found.length >= LINES_MAX) break;
    found.push({ timeNs: message.logTimeNs, topic: message.topic, text });
  }
  found.sort((a, b) => (a.timeNs < b.timeNs ? -1 : a.timeNs > b.timeNs ? 1 : 0));
  const startNs = found[0]?.timeNs ?? 0n;
  let status = '';
  return found
    .filter(({ topic, text }) => {
      // A status is told when it is another one.
      if (topic !== TOPICS.status.topic) return true;
      const isNew = text !== status;
      status = text;
      return isNew;
    })
    .map((line) => ({ ...line, atS: Number(line.timeNs - startNs) / 1e9 }));
}

function textOf(message: McapMessage): string | undefined {
  try {
    return texts[message.topic]?.(message.decode());
  } catch (error) {
    if (error instanceof PremotorError || error instanceof z.ZodError) return undefined;
    throw error;
  }
}
