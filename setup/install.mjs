/**
 * npm's install script: builds the native addon. It installs no system packages: without a compiler it names what to install and fails.
 */
import { ensureAddon, ensureTools, runMain } from './steps.mjs';

await runMain(() => {
  ensureTools({ mayInstall: false });
  ensureAddon();
});
