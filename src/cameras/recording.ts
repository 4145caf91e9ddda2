/**
 * Pictures out of an MCAP recording: the foxglove.CompressedImage messages of one topic, in protobuf or JSON, in the order of their log times. The
 * file is read once, at the start; pictures stay packed in memory and are decoded when they are asked for.
 */
import { PremotorError } from '../errors.js';
import { toPremotorError } from '../native.js';
import { pictureOf } from '../recording/mcap-picture.js';
import { type McapMessage, McapReader } from '../recording/mcap-reader.js';
import { type DecodedPicture, decodePicture } from './pictures.js';
import type { PictureList } from './played.js';

/** All pictures together, as they are in the file. */
const PACKED_BYTES_MAX = 1024 * 2 ** 20;
const SCHEMA = 'foxglove.CompressedImage';
/** Topics that an error names. */
const OTHERS_MAX = 32;

interface Packed {
  readonly logTimeNs: bigint;
  readonly data: Uint8Array;
}

function recordingError(file: string, expected: string, found: string, advice: string, cause?: unknown): PremotorError {
  return new PremotorError('CAMERA_RECORDING', `The recording ${file} cannot be played: expected ${expected}, found ${found}. ${advice}`, {
    file,
    expected,
    found,
    ...(cause === undefined ? {} : { cause }),
  });
}

/** What a file has of one topic. */
class Topic {
  readonly pictures: Packed[] = [];
  readonly others = new Set<string>();
  readonly #file: string;
  readonly #topic: string;
  #bytes = 0;

  constructor(file: string, topic: string) {
    this.#file = file;
    this.#topic = topic;
  }

  note(message: McapMessage): void {
    const { topic, channel, logTimeNs } = message;
    if (topic !== this.#topic) {
      if (channel.schema === SCHEMA && this.others.size < OTHERS_MAX) this.others.add(topic);
      return;
    }
    if (channel.schema !== SCHEMA) {
      const advice = 'Name the topic of pictures, or convert the recording.';
      throw recordingError(this.#file, `${SCHEMA} on ${topic}`, channel.schema || 'no schema', advice);
    }
    const { data } = pictureOf(message);
    this.#bytes += data.length;
    // A copy: the message is a view of a whole chunk.
    this.pictures.push({ logTimeNs, data: data.slice() });
    if (this.#bytes <= PACKED_BYTES_MAX) return;
    const expected = `at most ${PACKED_BYTES_MAX} bytes of pictures on ${topic}`;
    throw recordingError(this.#file, expected, 'more', 'Cut it, or play a folder of pictures.');
  }
}

/** What was cut off at the end is played up to there. */
async function readTopic(file: string, topic: string): Promise<Topic> {
  const found = new Topic(file, topic);
  let reader: McapReader | undefined;
  try {
    reader = await McapReader.open(file);
    for await (const message of reader.messages()) found.note(message);
  } catch (cause) {
    const { code, expected = 'an MCAP file', found: what = (cause as Error).message } = toPremotorError(cause);
    if (code === 'CAMERA_RECORDING') throw cause;
    throw recordingError(file, expected, what, 'Check the path, repair it with premotor record recover, or convert it.', cause);
  } finally {
    await reader?.close();
  }
  return found;
}

/** Errors: CAMERA_RECORDING. */
export async function openRecording(file: string, topic: string): Promise<PictureList> {
  const { pictures, others } = await readTopic(file, topic);
  if (pictures.length === 0) {
    const found = others.size === 0 ? 'no pictures at all' : `pictures on ${[...others].join(', ')} alone`;
    throw recordingError(file, `pictures on ${topic}`, found, "Name their topic as the source's `topic`.");
  }
  pictures.sort((a, b) => (a.logTimeNs < b.logTimeNs ? -1 : a.logTimeNs > b.logTimeNs ? 1 : 0));
  const picture = async (index: number): Promise<DecodedPicture> => {
    try {
      return await decodePicture(pictures[index]?.data ?? new Uint8Array(0));
    } catch (cause) {
      throw recordingError(file, `a picture as message ${index} on ${topic}`, (cause as Error).message, 'Convert the recording.', cause);
    }
  };
  const { width, height } = await picture(0);
  return { count: pictures.length, width, height, picture };
}
