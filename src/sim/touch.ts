/**
 * The task `touch`: press the button whose colour the instruction names, and no other. A seed fixes where the buttons stand and which one is named.
 */
import { Random } from './random.js';
import { BUTTON_COLOURS, type ButtonColour } from './scene.js';
import type { ButtonLayout, TablePoint, World } from './world.js';

/** The area that buttons stand in and the least distance between two, metres. */
export const TOUCH_AREA = { xMin: 0.21, xMax: 0.4, yMin: -0.17, yMax: 0.17, spacing: 0.095 } as const;

export interface TouchScene {
  readonly layout: ButtonLayout;
  readonly target: ButtonColour;
  readonly instruction: string;
}

/** The scene of a seed. */
export function touchScene(seed: number): TouchScene {
  const random = new Random(seed);
  const target = BUTTON_COLOURS[random.integer(BUTTON_COLOURS.length)] ?? 'red';
  const layout = placeButtons(random);
  return { layout, target, instruction: `touch the ${target} button` };
}

/** Draws whole layouts until one keeps the spacing; about one in three does. */
function placeButtons(random: Random): ButtonLayout {
  for (;;) {
    const points = BUTTON_COLOURS.map(
      (): TablePoint => ({
        x: random.uniform(TOUCH_AREA.xMin, TOUCH_AREA.xMax),
        y: random.uniform(TOUCH_AREA.yMin, TOUCH_AREA.yMax),
      }),
    );
    const [red, green, blue] = points as [TablePoint, TablePoint, TablePoint];
    const nearest = Math.min(distance(red, green), distance(green, blue), distance(blue, red));
    if (nearest >= TOUCH_AREA.spacing) return { red, green, blue };
  }
}

function distance(a: TablePoint, b: TablePoint): number {
  return Math.hypot(a.x - b.x, a.y - b.y);
}

/** True once the named button was pressed, unless another one was pressed as well. */
export function touchSucceeded(world: World, target: ButtonColour): boolean {
  return BUTTON_COLOURS.every((colour) => (colour === target ? world.presses(colour) > 0 : world.presses(colour) === 0));
}
