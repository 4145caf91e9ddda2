/** Light or dark: as the system asks, until the viewer says otherwise, which this browser remembers. Loaded first, so that no page flashes. */

const KEY = 'premotor-theme';
const CHANGED = 'premotor-theme-changed';

const system = matchMedia('(prefers-color-scheme: dark)');

/** A browser may forbid storage; then the choice lasts as long as the page. */
let chosen: string | null = null;
try {
  chosen = localStorage.getItem(KEY);
} catch {
  chosen = null;
}

function isDark(): boolean {
  return chosen === 'dark' || (chosen !== 'light' && system.matches);
}

function apply(): void {
  document.documentElement.dataset['theme'] = isDark() ? 'dark' : 'light';
  const button = document.getElementById('theme');
  if (button) {
    button.textContent = isDark() ? 'Light' : 'Dark';
    button.setAttribute('aria-label', `Switch to ${isDark() ? 'light' : 'dark'} colours`);
  }
  dispatchEvent(new Event(CHANGED));
}

function toggle(): void {
  chosen = isDark() ? 'light' : 'dark';
  try {
    localStorage.setItem(KEY, chosen);
  } catch {
    // Not remembered.
  }
  apply();
}

/** Called after every change; what is drawn on a canvas has to be drawn again. */
export function onTheme(listener: () => void): void {
  addEventListener(CHANGED, listener);
}

/** A colour of theme.css, as it is now. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

system.addEventListener('change', apply);
document.getElementById('theme')?.addEventListener('click', toggle);
apply();
