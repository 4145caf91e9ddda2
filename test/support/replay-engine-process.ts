/** The child of the golden harness's isolation test: the real host over the recorded trace of the case that PREMOTOR_REPLAY names. */
import { serveEngine } from '../../src/policy/engine-host.js';
import { openLocal } from '../../src/policy/load.js';
import { readGolden } from './golden.js';
import { replayNative } from './replay-native.js';

const golden = readGolden(process.env['PREMOTOR_REPLAY'] ?? '');
serveEngine((options) => openLocal(options, { native: replayNative(golden) }));
