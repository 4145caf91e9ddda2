/**
 * Where everything lies on a robot's disk: partitions, sizes, names and ids, all derived from what goes in, so that equal inputs give equal disks.
 * Pure; it knows numbers and names and touches no file.
 */
import { createHash } from 'node:crypto';
import { PremotorError } from '../errors.js';

export const MIB = 1 << 20;

export type Arch = 'amd64' | 'arm64';
export const ARCHES: readonly Arch[] = ['amd64', 'arm64'];

/** GPT: a protective record, two tables of 16 KiB, and the usual alignment. */
const FIRST_MIB = 1;
const LAST_TABLE_MIB = 1;

export const ESP_MIB = 64;
export const SYSTEM_MIB_DEFAULT = 1024;
/** What the data partition has beyond the files that go into it; it grows to the end of the disk at the first start. */
export const DATA_SPARE_MIB = 128;

/** GPT type ids, as sgdisk's short codes: EFI system, Linux reserved (nothing mounts a slot by itself), Linux file system. */
const typeCodes = { esp: 'EF00', 'system-a': '8301', 'system-b': '8301', data: '8300' } as const;

export type PartitionName = keyof typeof typeCodes;

export interface Partition {
  readonly name: PartitionName;
  readonly number: number;
  readonly typeCode: string;
  readonly uuid: string;
  readonly startBytes: number;
  readonly sizeBytes: number;
}

export interface Layout {
  readonly diskUuid: string;
  readonly sizeBytes: number;
  readonly partitions: readonly Partition[];
}

export interface LayoutInputs {
  /** A hash of everything that goes in. */
  readonly identity: string;
  readonly systemMib: number;
  readonly dataMib: number;
}

/** A UUID (version 8: our own) of `name` below `identity`. */
export function derivedUuid(identity: string, name: string): string {
  const bytes = createHash('sha256').update(`premotor-image\0${identity}\0${name}`).digest().subarray(0, 16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x80;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = bytes.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** The 32-bit volume id of a FAT file system, eight hexadecimal digits. */
export function derivedVolumeId(identity: string): string {
  return createHash('sha256').update(`premotor-fat\0${identity}`).digest('hex').slice(0, 8);
}

export function layoutOf({ identity, systemMib, dataMib }: LayoutInputs): Layout {
  const sizes: readonly (readonly [PartitionName, number])[] = [
    ['esp', ESP_MIB],
    ['system-a', systemMib],
    ['system-b', systemMib],
    ['data', dataMib],
  ];
  let nextMib = FIRST_MIB;
  const partitions = sizes.map(([name, sizeMib], index): Partition => {
    const startBytes = nextMib * MIB;
    nextMib += sizeMib;
    return { name, number: index + 1, typeCode: typeCodes[name], uuid: derivedUuid(identity, name), startBytes, sizeBytes: sizeMib * MIB };
  });
  return { diskUuid: derivedUuid(identity, 'disk'), sizeBytes: (nextMib + LAST_TABLE_MIB) * MIB, partitions };
}

export function partitionOf(layout: Layout, name: PartitionName): Partition {
  const found = layout.partitions.find((partition) => partition.name === name);
  if (found === undefined) throw new Error(`no partition ${name}`);
  return found;
}

/** sgdisk's arguments for an empty disk image of the layout's size. */
export function sgdiskArgs(layout: Layout, file: string): readonly string[] {
  const sector = 512;
  const args = ['--clear', `--disk-guid=${layout.diskUuid}`];
  for (const { name, number, typeCode, uuid, startBytes, sizeBytes } of layout.partitions) {
    args.push(`--new=${number}:${startBytes / sector}:${(startBytes + sizeBytes) / sector - 1}`);
    args.push(`--typecode=${number}:${typeCode}`, `--change-name=${number}:${name}`, `--partition-guid=${number}:${uuid}`);
  }
  return [...args, file];
}

/** Errors: IMAGE_SYSTEM_TOO_LARGE when the root does not fit into its slot. */
export function checkSlot(rootBytes: number, systemMib: number): void {
  if (rootBytes <= systemMib * MIB) return;
  const expected = `at most ${systemMib} MiB`;
  const found = `${Math.ceil(rootBytes / MIB)} MiB`;
  throw new PremotorError(
    'IMAGE_SYSTEM_TOO_LARGE',
    `The system does not fit into its slot: expected ${expected}, found ${found}. Give --system-mib a larger size, the same for a whole fleet.`,
    { expected, found },
  );
}
