/** The child of the isolation tests: the real host and the real local policy over the fake engine. */
import { serveEngine } from '../../src/policy/engine-host.js';
import { openLocal } from '../../src/policy/load.js';
import { FakeNative, FakeText } from './fake-native.js';

serveEngine((options) => openLocal(options, { native: new FakeNative(), text: new FakeText() }));
