/** The child of the recovery tests: the real host over a policy whose answers follow from its history, slow enough to be killed in the middle. */
import { serveEngine } from '../../src/policy/engine-host.js';
import { FakeModel } from './fake-model.js';

serveEngine(async () => {
  const model = new FakeModel();
  model.delayMs = 20;
  return model;
});
