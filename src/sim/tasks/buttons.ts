/**
 * What the three button tasks share: where buttons may stand, how a layout is drawn, and the joint poses that press them.
 */
import { inverseKinematics } from '../arm.js';
import type { Random } from '../random.js';
import { BUTTON_COLOURS, type ButtonColour } from '../scene.js';
import type { ButtonLayout, TablePoint } from '../world.js';
import { pressPoint } from './moves.js';

/** The area that buttons stand in and the least distance between two, metres. */
export const BUTTON_AREA = { xMin: 0.21, xMax: 0.4, yMin: -0.17, yMax: 0.17, spacing: 0.105 } as const;

/** Draws whole layouts until one keeps the spacing; about one in four does. */
export function placeButtons(random: Random): ButtonLayout {
  for (;;) {
    const points = BUTTON_COLOURS.map(
      (): TablePoint => ({
        x: random.uniform(BUTTON_AREA.xMin, BUTTON_AREA.xMax),
        y: random.uniform(BUTTON_AREA.yMin, BUTTON_AREA.yMax),
      }),
    );
    const [red, green, blue] = points as [TablePoint, TablePoint, TablePoint];
    const nearest = Math.min(distance(red, green), distance(green, blue), distance(blue, red));
    if (nearest >= BUTTON_AREA.spacing) return { red, green, blue };
  }
}

export function distance(a: TablePoint, b: TablePoint): number {
  return Math.hypot(a.x - b.x, a.y - b.y);
}

export function pickColour(random: Random): ButtonColour {
  return BUTTON_COLOURS[random.integer(BUTTON_COLOURS.length)] ?? 'red';
}

/** The pose that presses each button. */
export function buttonGoals(layout: ButtonLayout): Record<ButtonColour, readonly number[]> {
  const pose = (colour: ButtonColour): readonly number[] => [...inverseKinematics(pressPoint(layout[colour]))];
  return { red: pose('red'), green: pose('green'), blue: pose('blue') };
}

/** The scene's buttons. A task for buttons never meets another layout. */
export function buttonsOf(layout: { readonly kind: string; readonly buttons?: ButtonLayout }): ButtonLayout {
  if (!layout.buttons) throw new RangeError(`a ${layout.kind} scene has no buttons`);
  return layout.buttons;
}
