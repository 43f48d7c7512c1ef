// Tokens out of logits. Every rounding to float32 is where numpy has it in the package, so that the same logits
// and random numbers give the same tokens.

const fround = Math.fround;

/** The place of the largest of `count` numbers from `start` on, the first of equal ones. */
export function likeliest(values, start, count) {
  let best = 0;
  for (let index = 1; index < count; index++) if (values[start + index] > values[start + best]) best = index;
  return best;
}

/** Logits -> float32 probabilities. */
export function softmax(logits) {
  const made = new Float32Array(logits.length);
  let most = -Infinity, whole = 0;
  for (const logit of logits) if (logit > most) most = logit;
  for (let index = 0; index < made.length; index++) {
    made[index] = Math.exp(fround(logits[index] - most));
    whole += made[index];
  }
  whole = fround(whole);
  for (let index = 0; index < made.length; index++) made[index] /= whole;
  return made;
}

// MusicGen

/** Logits of one codebook -> probabilities with the unlikely ones at 0; they do not sum up to 1. */
export function filtered(logits, { topK, topP, minP }) {
  let made = softmax(logits);
  const size = made.length;
  if (topK > 0 && topK < size) {
    const least = Float32Array.from(made).sort()[size - topK];
    made = made.map((each) => (each >= least ? each : 0));
  }
  if (topP > 0 && topP < 1) made = nucleus(made, topP);
  if (minP > 0) {
    const least = fround(fround(minP) * made.reduce((most, each) => Math.max(most, each), 0));
    made = made.map((each) => (each >= least ? each : 0));
  }
  return made;
}

/** Keeps the likeliest until they hold `share` of the whole, the one that reaches it included. */
function nucleus(probabilities, share) {
  const order = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a]);
  const whole = fround(order.reduce((sum, index) => sum + probabilities[index], 0));
  const made = new Float32Array(probabilities.length), limit = fround(fround(share) * whole);
  let sum = 0;
  for (const index of order) {
    sum = fround(sum + probabilities[index]);
    if (fround(sum - probabilities[index]) <= limit) made[index] = probabilities[index];
  }
  return made;
}

/** The first token whose probability, with those before it, exceeds the share that a number from [0, 1) says. */
export function pick(probabilities, number) {
  let whole = 0, sum = 0;
  for (const each of probabilities) whole = fround(whole + each);
  const reached = fround(number * whole);
  for (let index = 0; index < probabilities.length; index++) {
    sum = fround(sum + probabilities[index]);
    if (probabilities[index] > 0 && sum > reached) return index;
  }
  return 0;
}

// VampNet

const COLDEST = 1e-4; // temperatures below act as this: float32 would overflow

/** Logits of which the likeliest are left, up to the one that takes them beyond `mass`; others -Infinity. */
function upTo(mass, logits) {
  const ranked = Float32Array.from(logits).sort().reverse();
  let sum = 0, kept = 0;
  for (const share of softmax(ranked)) {
    sum = fround(sum + share);
    if (sum <= fround(mass)) kept++;
  }
  const bound = ranked[Math.min(kept, ranked.length - 1)];
  return Float32Array.from(logits, (logit) => (logit < bound ? -Infinity : logit));
}

/** A token of one row of logits, and its probability. Without exponential noise, the likeliest. */
export function draw(logits, noise, { temperature, topP }) {
  let row = topP !== null && topP < 1 ? upTo(topP, logits) : logits;
  const best = noise === null ? likeliest(row, 0, row.length) : null;
  if (temperature > 0 && temperature !== 1) {
    const heat = fround(Math.max(temperature, COLDEST));
    row = Float32Array.from(row, (logit) => logit / heat);
  }
  const probabilities = softmax(row);
  const token = best ?? race(probabilities, noise);
  return [token, probabilities[token]];
}

/** The first of the largest quotients. */
function race(probabilities, noise) {
  let best = 0, most = -Infinity;
  for (let index = 0; index < probabilities.length; index++) {
    const quotient = fround(probabilities[index] / noise[index]);
    if (quotient > most) [best, most] = [index, quotient];
  }
  return best;
}
