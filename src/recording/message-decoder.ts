/**
 * What the messages of an MCAP file say: JSON, and protocol buffers by the types that the file carries. Owned by the reader; a type is looked at
 * once, and one that cannot be used is an error for every message of it.
 */
import { PremotorError } from '../errors.js';
import { decodeDescriptors } from './descriptor.js';
import { decodeProto, type ProtoTypes } from './protobuf.js';

/** Text of one message. */
const JSON_BYTES_MAX = 64 * 2 ** 20;

interface Channel {
  readonly topic: string;
  readonly encoding: string;
}

interface Schema {
  readonly id: number;
  readonly name?: string;
  readonly encoding?: string;
  readonly data?: Uint8Array;
}

export class MessageDecoder {
  readonly #types = new Map<number, ProtoTypes | PremotorError>();

  /** A schema of this number was declared again. */
  forget(schemaId: number): void {
    this.#types.delete(schemaId);
  }

  /** Errors: MCAP_DAMAGED, MCAP_UNSUPPORTED. */
  decode(file: string, { topic, encoding }: Channel, schema: Schema, data: Uint8Array): Readonly<Record<string, unknown>> {
    if (encoding === 'json') return fromJson(file, topic, data);
    if (encoding === 'protobuf' && schema.encoding === 'protobuf') return decodeProto(this.#typesOf(schema), schema.name ?? '', data);
    const [expected, found] = ['messages in json or protobuf', encoding === '' ? 'no encoding' : encoding];
    const message = `The topic ${topic} of ${file} cannot be read: expected ${expected}, found ${found}. Convert the recording.`;
    throw new PremotorError('MCAP_UNSUPPORTED', message, { file, field: topic, expected, found });
  }

  #typesOf({ id, data = new Uint8Array(0) }: Schema): ProtoTypes {
    let types = this.#types.get(id);
    if (types === undefined) {
      try {
        types = decodeDescriptors(data);
      } catch (error) {
        types = error as PremotorError;
      }
      this.#types.set(id, types);
    }
    if (types instanceof Error) throw types;
    return types;
  }
}

function fromJson(file: string, topic: string, data: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    if (data.length > JSON_BYTES_MAX) throw new RangeError(`${data.length} bytes`);
    const value: unknown = JSON.parse(Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('utf8'));
    if (typeof value !== 'object' || value === null) throw new TypeError(`a ${typeof value}`);
    return value as Record<string, unknown>;
  } catch (cause) {
    const found = (cause as Error).message;
    const message = `A message of ${topic} in ${file} cannot be read: expected a JSON object, found ${found}. Use an intact copy of the recording.`;
    throw new PremotorError('MCAP_DAMAGED', message, { file, field: topic, expected: 'a JSON object', found, cause });
  }
}
