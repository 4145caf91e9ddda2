/**
 * Entry point of the process that an isolated exported policy runs in: the same host as the engine's, with a model instead. Forked by open.ts;
 * nothing imports it. ONNX Runtime computes on the thread that asks, so it is kept off the supervisor's.
 */
import { serveEngine } from '../engine-host.js';
import { openOnnx } from './open.js';

serveEngine(openOnnx);
