/**
 * Entry point of the engine process that `isolate: true` forks: a local policy behind the parent's channel. Owned by isolated.ts; nothing imports it.
 */
import { serveEngine } from './engine-host.js';
import { openLocal } from './load.js';

serveEngine(openLocal);
