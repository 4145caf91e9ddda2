/**
 * Types of protocol buffers as bytes and back: the FileDescriptorSet that an MCAP file carries beside its messages, so that whoever opens it needs no
 * other file. Owned by the recording's schemas and by the reader; a set that is damaged or made up becomes an error, never code.
 */
import { PremotorError } from '../errors.js';
import { decodeProto, encodeProto, type ProtoField, type ProtoMessage, type ProtoTypes, type ProtoValue, SCALARS, type Scalar } from './protobuf.js';

/** One .proto file: what of the types it declares. Enums of a message have its name in front. */
export interface ProtoFile {
  readonly name: string;
  readonly packageName: string;
  readonly imports: readonly string[];
  readonly messages: readonly string[];
}

/** Types of one set; more are made to hurt. */
const TYPES_MAX = 4096;
const NESTED_MAX = 16;

const repeated = { isRepeated: true } as const;
const many = (name: string, number: number, typeName: string): ProtoField => ({ name, number, type: 'message', typeName, ...repeated });

/** The types of descriptors themselves: as much of descriptor.proto as is needed. */
const DESCRIPTORS: ProtoTypes = {
  messages: new Map<string, ProtoMessage>([
    ['Set', { fields: [many('file', 1, 'File')] }],
    [
      'File',
      {
        fields: [
          { name: 'name', number: 1, type: 'string' },
          { name: 'package', number: 2, type: 'string' },
          { name: 'dependency', number: 3, type: 'string', ...repeated },
          many('message_type', 4, 'Message'),
          many('enum_type', 5, 'Enum'),
          { name: 'syntax', number: 12, type: 'string' },
        ],
      },
    ],
    [
      'Message',
      {
        fields: [
          { name: 'name', number: 1, type: 'string' },
          many('field', 2, 'Field'),
          many('nested_type', 3, 'Message'),
          many('enum_type', 4, 'Enum'),
          many('oneof_decl', 8, 'Oneof'),
        ],
      },
    ],
    [
      'Field',
      {
        fields: [
          { name: 'name', number: 1, type: 'string' },
          { name: 'number', number: 3, type: 'int32' },
          { name: 'label', number: 4, type: 'enum', typeName: 'Label' },
          { name: 'type', number: 5, type: 'enum', typeName: 'Type' },
          { name: 'type_name', number: 6, type: 'string' },
          { name: 'oneof_index', number: 9, type: 'int32', isOptional: true },
          { name: 'json_name', number: 10, type: 'string' },
          { name: 'proto3_optional', number: 17, type: 'bool' },
        ],
      },
    ],
    [
      'Enum',
      {
        fields: [{ name: 'name', number: 1, type: 'string' }, many('value', 2, 'EnumValue')],
      },
    ],
    [
      'EnumValue',
      {
        fields: [
          { name: 'name', number: 1, type: 'string' },
          { name: 'number', number: 2, type: 'int32', isOptional: true },
        ],
      },
    ],
    ['Oneof', { fields: [{ name: 'name', number: 1, type: 'string' }] }],
  ]),
  enums: new Map(),
};

/** FieldDescriptorProto.Type, by number. */
const TYPE_NUMBERS: Readonly<Record<ProtoField['type'], number>> = {
  double: 1,
  float: 2,
  int64: 3,
  uint64: 4,
  int32: 5,
  fixed64: 6,
  fixed32: 7,
  bool: 8,
  string: 9,
  message: 11,
  bytes: 12,
  uint32: 13,
  enum: 14,
  sfixed32: 15,
  sfixed64: 16,
  sint32: 17,
  sint64: 18,
};
const LABELS = { optional: 1, repeated: 3 } as const;
const typeByNumber = new Map(Object.entries(TYPE_NUMBERS).map(([type, number]) => [number, type as ProtoField['type']]));

/** Files and their types as a FileDescriptorSet. */
export function encodeDescriptors(types: ProtoTypes, files: readonly ProtoFile[]): Uint8Array {
  return encodeProto(DESCRIPTORS, 'Set', {
    file: files.map(({ name, packageName, imports, messages }) => ({
      name,
      package: packageName,
      dependency: imports,
      message_type: messages.map((one) => messageDescriptor(types, `${packageName}.${one}`, one)),
      syntax: 'proto3',
    })),
  });
}

function messageDescriptor(types: ProtoTypes, fullName: string, name: string): ProtoValue {
  const fields = types.messages.get(fullName)?.fields ?? [];
  const optional = fields.filter(({ isOptional }) => isOptional);
  const enums = [...types.enums].filter(([one]) => one.startsWith(`${fullName}.`));
  return {
    name,
    field: fields.map((field) => ({
      name: field.name,
      number: field.number,
      label: field.isRepeated ? LABELS.repeated : LABELS.optional,
      type: TYPE_NUMBERS[field.type],
      ...(field.typeName === undefined ? {} : { type_name: `.${field.typeName}` }),
      ...(field.isOptional ? { oneof_index: optional.indexOf(field), proto3_optional: true } : {}),
      json_name: field.name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase()),
    })),
    enum_type: enums.map(([one, values]) => ({
      name: one.slice(fullName.length + 1),
      value: Object.entries(values).map(([value, number]) => ({ name: value, number })),
    })),
    // Each optional field of proto3 is the only member of a group of its own.
    oneof_decl: optional.map((field) => ({ name: `_${field.name}` })),
  };
}

/** The types of a FileDescriptorSet. Errors: MCAP_DAMAGED. */
export function decodeDescriptors(bytes: Uint8Array): ProtoTypes {
  const messages = new Map<string, ProtoMessage>();
  const enums = new Map<string, Record<string, number>>();
  const set = decodeProto(DESCRIPTORS, 'Set', bytes) as { file: readonly ProtoValue[] };
  for (const file of set.file) {
    const prefix = file['package'] === '' ? '' : `${String(file['package'])}.`;
    for (const one of file['enum_type'] as ProtoValue[]) addEnum(enums, prefix, one);
    for (const one of file['message_type'] as ProtoValue[]) addMessage(messages, enums, prefix, one, 0);
  }
  return { messages, enums };
}

function addEnum(enums: Map<string, Record<string, number>>, prefix: string, type: ProtoValue): void {
  const values = type['value'] as { name: string; number?: number }[];
  enums.set(`${prefix}${String(type['name'])}`, Object.fromEntries(values.map(({ name, number = 0 }) => [name, number])));
}

function addMessage(
  messages: Map<string, ProtoMessage>,
  enums: Map<string, Record<string, number>>,
  prefix: string,
  type: ProtoValue,
  depth: number,
): void {
  const name = `${prefix}${String(type['name'])}`;
  if (messages.size >= TYPES_MAX || depth > NESTED_MAX) throw tooMany(`${messages.size} types, ${depth} inside each other`);
  messages.set(name, { fields: (type['field'] as ProtoValue[]).map(fieldOf) });
  for (const one of type['enum_type'] as ProtoValue[]) addEnum(enums, `${name}.`, one);
  for (const one of type['nested_type'] as ProtoValue[]) addMessage(messages, enums, `${name}.`, one, depth + 1);
}

function fieldOf(field: ProtoValue): ProtoField {
  const type = typeByNumber.get(Number(field['type']));
  // Groups, the one kind that is missing, are not in proto3.
  if (type === undefined || !(isScalar(type) || type === 'enum' || type === 'message')) throw tooMany(`a field of kind ${String(field['type'])}`);
  const typeName = String(field['type_name'] ?? '').replace(/^\./, '');
  return {
    name: String(field['name']),
    number: Number(field['number']),
    type,
    ...(typeName === '' ? {} : { typeName }),
    ...(Number(field['label']) === LABELS.repeated ? repeated : {}),
    ...(field['proto3_optional'] === true ? { isOptional: true } : {}),
  };
}

const isScalar = (type: string): type is Scalar => (SCALARS as readonly string[]).includes(type);

function tooMany(found: string): PremotorError {
  const expected = `at most ${TYPES_MAX} types of proto3`;
  const message = `The types in a recording cannot be used: expected ${expected}, found ${found}. Use an intact copy of the recording.`;
  return new PremotorError('MCAP_DAMAGED', message, { expected, found });
}
