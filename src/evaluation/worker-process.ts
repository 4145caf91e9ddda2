/**
 * Entry point of an evaluation worker: runs the episodes that its parent names, one at a time, with a policy of its own. Forked by
 * workers.ts; nothing imports it. It ends when its parent does.
 */
import { loadPolicy } from '../policy/load.js';
import { serveEpisodes } from './worker.js';

serveEpisodes(loadPolicy);
