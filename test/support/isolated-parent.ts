/**
 * A process that owns an isolated policy, for the tests of what happens to the engine when its owner ends. Prints the engine's process id; with
 * "idle" it then has nothing more to do, otherwise a call runs that never ends.
 */
import { IsolatedPolicy } from '../../src/policy/isolated.js';
import { seeds } from './fake-native.js';
import { checkpoint, fakeEngineProcess, observation, smallJob } from './fixtures.js';

const policy = await IsolatedPolicy.open({ checkpoint, job: smallJob(), threads: 1 }, { module: fakeEngineProcess });
await policy.reset({ prompt: 'a' });
const running = process.argv[2] === 'idle' ? undefined : policy.predict({ obs: observation(), seed: seeds.waitForCancel });
process.stdout.write(`${policy.pid}\n`);
await running;
