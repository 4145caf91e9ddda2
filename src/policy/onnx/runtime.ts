/**
 * The door to onnxruntime-node: loads the optional package when a model is opened, opens sessions on the CPU and turns its errors into coded ones.
 * Owned by open.ts; it knows nothing of robots. The package's types stay in here.
 */
import { PremotorError } from '../../errors.js';

/** Element types that are mapped, by onnxruntime's names. */
export const ELEMENT_TYPES = ['float32', 'float64', 'uint8', 'int32', 'int64', 'bool'] as const;
export type ElementType = (typeof ELEMENT_TYPES)[number];
export type Elements = Float32Array | Float64Array | Uint8Array | Int32Array | BigInt64Array;

/** One input or output as the model declares it; axes that are not fixed are undefined. */
export interface Declared {
  readonly name: string;
  /** A type of ELEMENT_TYPES or another one of ONNX; undefined: no tensor. */
  readonly type: string | undefined;
  readonly shape: readonly (number | undefined)[];
}

export interface Value {
  readonly type: ElementType;
  readonly shape: readonly number[];
  readonly data: Elements;
}

/** An open model. One run at a time. */
export interface OnnxSession {
  readonly inputs: readonly Declared[];
  readonly outputs: readonly Declared[];
  /** Version of ONNX Runtime. */
  readonly version: string;
  run(
    feeds: ReadonlyMap<string, Value>,
    output: string,
  ): Promise<{ readonly type: string; readonly shape: readonly number[]; readonly data: unknown }>;
  close(): Promise<void>;
}

/** What is used of the package. Its own types are not: it is optional, and premotor is compiled without it too. */
interface Runtime {
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<RuntimeSession> };
  readonly Tensor: new (type: string, data: Elements, shape: readonly number[]) => RuntimeTensor;
  readonly env: { readonly versions: { readonly node?: string } };
}

interface RuntimeTensor {
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: unknown;
}

interface RuntimeSession {
  readonly inputMetadata: readonly Metadata[];
  readonly outputMetadata: readonly Metadata[];
  run(feeds: Readonly<Record<string, RuntimeTensor>>, outputs: readonly string[]): Promise<Readonly<Record<string, RuntimeTensor>>>;
  release(): Promise<void>;
}

type Metadata = { readonly name: string } & (
  | { readonly isTensor: false }
  | { readonly isTensor: true; readonly type: string; readonly shape: readonly (number | string)[] }
);

/** Brings the package; tests bring one that is missing. */
export type ImportRuntime = () => Promise<Runtime>;

/** Not a literal, so that the compiler does not look for it. */
const PACKAGE: string = 'onnxruntime-node';
const importRuntime: ImportRuntime = () => import(PACKAGE) as Promise<Runtime>;

/** Opens a model's bytes. Errors: ONNX_MISSING, ONNX_MODEL. */
export async function openSession(model: Uint8Array, file: string, threads: number, load: ImportRuntime = importRuntime): Promise<OnnxSession> {
  const runtime = await load().catch((cause: unknown) => {
    const found = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause);
    const message = `The backend onnx needs the package onnxruntime-node: expected it installed, found ${found}. Run "npm install onnxruntime-node".`;
    throw new PremotorError('ONNX_MISSING', message, { expected: 'onnxruntime-node', found, cause });
  });
  const options = { executionProviders: ['cpu'], intraOpNumThreads: threads, interOpNumThreads: 1, logSeverityLevel: 4 } as const;
  const session = await runtime.InferenceSession.create(model, options).catch((cause: Error) => {
    const message = `The model ${file} cannot be opened: ${cause.message} Expected an ONNX model with its weights inside; export or copy it again.`;
    throw new PremotorError('ONNX_MODEL', message, { file, expected: 'an ONNX model', found: cause.message, cause });
  });
  return {
    inputs: session.inputMetadata.map(declared),
    outputs: session.outputMetadata.map(declared),
    version: runtime.env.versions.node ?? 'unknown',
    run: async (feeds, output) => {
      const tensors = [...feeds].map(([name, { type, shape, data }]) => [name, new runtime.Tensor(type, data, shape)] as const);
      try {
        const results = await session.run(Object.fromEntries(tensors), [output]);
        const { type, dims, data } = results[output] as RuntimeTensor;
        return { type, shape: dims, data };
      } catch (cause) {
        const found = (cause as Error).message;
        const message = `The model ${file} did not run: ${found} Check the shapes in its job.json against the model, and the memory.`;
        throw new PremotorError('ONNX_RUN', message, { file, expected: 'a run', found, cause });
      }
    },
    close: () => session.release(),
  };
}

function declared(metadata: Metadata): Declared {
  if (!metadata.isTensor) return { name: metadata.name, type: undefined, shape: [] };
  const shape = metadata.shape.map((size) => (typeof size === 'number' && size >= 0 ? size : undefined));
  return { name: metadata.name, type: metadata.type, shape };
}
