/** When the pipeline begins to think, as pure arithmetic on latent frames. */

/**
 * Whether a prediction must begin now so that its chunk lands before the plan is over. `framesLeft` is what is planned and not executed;
 * `neededFrames` is how much of it passes while the policy thinks. The next chance is one latent frame later.
 */
export function isTimeToFollow(framesLeft: number, neededFrames: number): boolean {
  return framesLeft - 1 < neededFrames;
}

/**
 * Weights of real-time chunking's soft mask (arXiv 2506.07339, equation 5) for a chunk of `count` actions: `delay` of them will have been executed
 * when it lands, and the plan before it reaches over `overlap` of them. 1 for i < delay, then c (e^c - 1) / (e - 1) with
 * c = (overlap - i) / (overlap - delay + 1), and 0 from the overlap on.
 */
export function softMask(count: number, delay: number, overlap: number): Float32Array {
  return Float32Array.from({ length: count }, (_, index) => {
    if (index < Math.min(delay, overlap)) return 1;
    if (index >= overlap) return 0;
    const c = (overlap - index) / (overlap - delay + 1);
    return (c * (Math.exp(c) - 1)) / (Math.E - 1);
  });
}
