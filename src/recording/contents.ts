/**
 * What is in a recording: its topics, how long it is, the run that it shows, the policy's chunks and every fault. Owned by `premotor record info`; it
 * reads a file once from its beginning, whole or not, and keeps only what it reports.
 */
import { z } from 'zod';
import type { Damage, McapMessage, McapReader, ReadOptions } from './mcap-reader.js';
import { TOPICS } from './schemas.js';

/** Chunks and faults that are listed; all are counted. */
const LISTED_MAX = 10_000;

export interface TopicContents {
  readonly topic: string;
  readonly schema: string;
  readonly encoding: string;
  readonly messages: number;
  readonly bytes: number;
  /** Messages per second over the recording; 0 of one alone. */
  readonly rateHz: number;
}

const aboutSchema = z.object({
  id: z.string(),
  version: z.string(),
  robot: z.string(),
  joints: z.array(z.string()),
  task: z.string(),
  instruction: z.string(),
  seed: z.number(),
  mode: z.string(),
  checkpoint: z.string(),
  checkpoint_hash: z.string(),
});
export type RunContents = Readonly<z.output<typeof aboutSchema>>;

const timingSchema = z.object({
  chunk: z.number(),
  frame_index: z.number(),
  knots: z.number(),
  clamped_knots: z.number(),
  delay_knots: z.number(),
  predict_ms: z.number(),
  execute_ms: z.number(),
  commit_wall_ms: z.number(),
});
export type ChunkContents = Readonly<z.output<typeof timingSchema>> & { readonly timeS: number };

const faultSchema = z.object({ code: z.string(), message: z.string(), state: z.string() });
export type FaultContents = Readonly<z.output<typeof faultSchema>> & { readonly timeS: number };

const recorderSchema = z.object({ bytes_written: z.bigint(), dropped: z.array(z.object({ name: z.string(), value: z.number() })) });

export interface RecordingContents {
  readonly file: string;
  readonly bytes: number;
  /** false: it was cut off; everything before is here. */
  readonly complete: boolean;
  readonly mcapChunks: number;
  readonly damages: readonly Damage[];
  readonly damageCount: number;
  /** ISO 8601, UTC; null without a message. */
  readonly start: string | null;
  readonly durationS: number;
  readonly messages: number;
  readonly topics: readonly TopicContents[];
  readonly run: RunContents | null;
  readonly chunks: readonly ChunkContents[];
  readonly faults: readonly FaultContents[];
  /** Entries of a replay record, its header included. */
  readonly replayEntries: number;
  /** What the recorder could not keep, by topic. */
  readonly dropped: Readonly<Record<string, number>>;
  /** Messages of premotor's own topics that are none. */
  readonly unreadable: number;
}

interface Count {
  readonly schema: string;
  readonly encoding: string;
  messages: number;
  bytes: number;
}

/** Errors: ABORTED, MCAP_UNSUPPORTED for a compression that this Node lacks. */
export async function contentsOf(reader: McapReader, options: Omit<ReadOptions, 'topics'> = {}): Promise<RecordingContents> {
  const tally = new Tally();
  for await (const message of reader.messages(options)) tally.add(message);
  const { isComplete, chunks: mcapChunks, damages, damageCount } = reader.state;
  // A file that ends early has one damage that says where: that is what incomplete means.
  return { file: reader.file, bytes: reader.bytes, complete: isComplete, mcapChunks, damages, damageCount, ...tally.result() };
}

class Tally {
  readonly #topics = new Map<string, Count>();
  #first: bigint | undefined;
  #last = 0n;
  #run: RunContents | null = null;
  readonly #chunks: [bigint, z.output<typeof timingSchema>][] = [];
  readonly #faults: [bigint, z.output<typeof faultSchema>][] = [];
  #dropped: Record<string, number> = {};
  #unreadable = 0;

  add(message: McapMessage): void {
    const { topic, channel, data, logTimeNs } = message;
    const count = this.#topics.get(topic) ?? { schema: channel.schema, encoding: channel.encoding, messages: 0, bytes: 0 };
    this.#topics.set(topic, count);
    count.messages++;
    count.bytes += data.length;
    if (this.#first === undefined || logTimeNs < this.#first) this.#first = logTimeNs;
    if (logTimeNs > this.#last) this.#last = logTimeNs;
    this.#look(message);
  }

  result(): Pick<
    RecordingContents,
    'start' | 'durationS' | 'messages' | 'topics' | 'run' | 'chunks' | 'faults' | 'replayEntries' | 'dropped' | 'unreadable'
  > {
    const first = this.#first ?? 0n;
    const durationS = Number(this.#last - first) / 1e9;
    const seconds = (timeNs: bigint): number => Number(timeNs - first) / 1e9;
    const topics = [...this.#topics].map(([topic, count]) => ({
      topic,
      ...count,
      rateHz: durationS > 0 && count.messages > 1 ? count.messages / durationS : 0,
    }));
    return {
      start: this.#first === undefined ? null : dateText(first),
      durationS,
      messages: topics.reduce((sum, { messages }) => sum + messages, 0),
      topics: topics.sort((a, b) => a.topic.localeCompare(b.topic)),
      run: this.#run,
      chunks: this.#chunks.map(([timeNs, chunk]) => ({ ...chunk, timeS: seconds(timeNs) })),
      faults: this.#faults.map(([timeNs, fault]) => ({ ...fault, timeS: seconds(timeNs) })),
      replayEntries: this.#topics.get(TOPICS.replay.topic)?.messages ?? 0,
      dropped: this.#dropped,
      unreadable: this.#unreadable,
    };
  }

  #look(message: McapMessage): void {
    const { topic, logTimeNs } = message;
    if (topic === TOPICS.about.topic) this.#run = this.#read(message, aboutSchema) ?? this.#run;
    else if (topic === TOPICS.timing.topic) keep(this.#chunks, logTimeNs, this.#read(message, timingSchema));
    else if (topic === TOPICS.faults.topic) keep(this.#faults, logTimeNs, this.#read(message, faultSchema));
    else if (topic === TOPICS.recorder.topic) {
      const found = this.#read(message, recorderSchema);
      if (found) this.#dropped = Object.fromEntries(found.dropped.slice(0, LISTED_MAX).map(({ name, value }) => [name, value]));
    }
  }

  #read<T>(message: McapMessage, schema: z.ZodType<T>): T | undefined {
    try {
      return schema.parse(message.decode());
    } catch {
      this.#unreadable++;
      return undefined;
    }
  }
}

function keep<T>(list: [bigint, T][], timeNs: bigint, value: T | undefined): void {
  if (value !== undefined && list.length < LISTED_MAX) list.push([timeNs, value]);
}

/** Dates end in the year 275760; a made-up time may lie beyond. */
const LAST_MS = 8_640_000_000_000_000n;

export function dateText(epochNs: bigint): string {
  const ms = epochNs / 1_000_000n;
  return ms <= LAST_MS ? new Date(Number(ms)).toISOString() : `${epochNs} ns`;
}
