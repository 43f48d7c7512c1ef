// The random numbers of numpy.random.default_rng(seed), number for number: PCG64 (O'Neill 2014, XSL-RR 128/64)
// behind numpy's SeedSequence, and exponential numbers by a ziggurat (Marsaglia and Tsang 2000) in float32.

const fround = Math.fround;

const WORD = 4294967296; // 2 ** 32
const SMALLEST = 2 ** -27; // of exponential numbers, as in the package's noise

/** The eight words of 32 bits, low ones first, by which a generator begins: SeedSequence(seed). */
export function seedWords(seed) {
  const entropy = [];
  for (let rest = BigInt(seed); rest > 0n || !entropy.length; rest >>= 32n) entropy.push(Number(rest & 0xffffffffn));
  let factor = 0x43b0d7e5;
  const hashed = (value) => {
    value ^= factor;
    factor = Math.imul(factor, 0x931e8875);
    value = Math.imul(value, factor);
    return value ^ (value >>> 16);
  };
  const mixed = (first, second) => {
    const value = Math.imul(0xca01f9dd, first) - Math.imul(0x4973f715, second);
    return (value ^ (value >>> 16)) | 0;
  };
  const pool = [0, 1, 2, 3].map((index) => hashed(entropy[index] ?? 0));
  for (let from = 0; from < 4; from++)
    for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mixed(pool[to], hashed(pool[from]));
  for (const word of entropy.slice(4)) for (let to = 0; to < 4; to++) pool[to] = mixed(pool[to], hashed(word));
  const words = new Uint32Array(8);
  factor = 0x8b51f9dd;
  for (let index = 0; index < 8; index++) {
    let value = pool[index % 4] ^ factor;
    factor = Math.imul(factor, 0x58f38ded);
    value = Math.imul(value, factor);
    words[index] = value ^ (value >>> 16);
  }
  return words;
}

/** The upper half of the product of two words. */
function high(a, b) {
  const aLow = a & 0xffff, aHigh = a >>> 16, bLow = b & 0xffff, bHigh = b >>> 16;
  const first = aHigh * bLow + (Math.imul(aLow, bLow) >>> 16);
  const second = aLow * bHigh + (first & 0xffff);
  return aHigh * bHigh + (first >>> 16) + (second >>> 16);
}

const low = (a, b) => Math.imul(a, b) >>> 0;

// The multiplier of PCG64, low words first.
const M0 = 0x9fccf645, M1 = 0x4385df64, M2 = 0x1fc65da4, M3 = 0x2360ed05;

export class Random {
  constructor(seed) {
    const words = seedWords(seed);
    // The increment is (sequence << 1) | 1; words of 64 bits come high one first.
    const [state1, state0, sequence1, sequence0] = [0, 2, 4, 6].map((at) => [words[at], words[at + 1]]);
    const sequence = [...sequence0, ...sequence1];
    this.increment = sequence.map((word, at) => ((word << 1) | (at ? sequence[at - 1] >>> 31 : 1)) >>> 0);
    this.state = [0, 0, 0, 0];
    this.kept = null; // the second half of 64 bits, of which the first was handed out
    this.step();
    let carry = 0;
    this.state = this.state.map((word, at) => {
      const sum = word + [...state0, ...state1][at] + carry;
      carry = sum >= WORD ? 1 : 0;
      return sum >>> 0;
    });
    this.step();
  }

  /** Another one that gives the same numbers from here on. */
  copy() {
    const other = Object.create(Random.prototype);
    return Object.assign(other, { increment: this.increment, state: [...this.state], kept: this.kept });
  }

  /** state = state * multiplier + increment, modulo 2 ** 128. */
  step() {
    const [s0, s1, s2, s3] = this.state, [i0, i1, i2, i3] = this.increment;
    const r0 = low(s0, M0) + i0;
    const r1 = high(s0, M0) + low(s0, M1) + low(s1, M0) + i1 + (r0 >= WORD ? 1 : 0);
    const r2 = high(s0, M1) + high(s1, M0) + low(s0, M2) + low(s1, M1) + low(s2, M0) + i2 + Math.floor(r1 / WORD);
    const r3 =
      high(s0, M2) + high(s1, M1) + high(s2, M0) + low(s0, M3) + low(s1, M2) + low(s2, M1) + low(s3, M0) + i3 +
      Math.floor(r2 / WORD);
    const state = this.state;
    state[0] = r0 >>> 0;
    state[1] = r1 >>> 0;
    state[2] = r2 >>> 0;
    state[3] = r3 >>> 0;
  }

  /** A whole number of 32 bits: the lower half of 64, then the upper one. */
  word() {
    if (this.kept !== null) {
      const word = this.kept;
      this.kept = null;
      return word;
    }
    this.step();
    const [s0, s1, s2, s3] = this.state;
    let lower = s2 ^ s0, upper = s3 ^ s1;
    const turn = s3 >>> 26;
    if (turn >= 32) [lower, upper] = [upper, lower];
    const by = turn & 31;
    if (by) [lower, upper] = [(lower >>> by) | (upper << (32 - by)), (upper >>> by) | (lower << (32 - by))];
    this.kept = upper >>> 0;
    return lower >>> 0;
  }

  /** A whole number below 2 ** bits, as `integers(2 ** bits, dtype=uint32)`. */
  bits(bits) {
    return this.word() >>> (32 - bits);
  }

  /** From [0, 1), as `random(dtype=float32)`. */
  uniform() {
    return (this.word() >>> 8) / 16777216;
  }

  /** With mean 1, as `standard_exponential(dtype=float32)`, but never 0, by which nothing can be divided. */
  exponential() {
    return Math.max(SMALLEST, this.fromZiggurat());
  }

  fromZiggurat() {
    for (;;) {
      const bits = this.word() >>> 1, strip = bits & 255, place = bits >>> 8;
      const x = fround(place * WIDTHS[strip]);
      if (place < INSIDE[strip]) return x;
      if (strip === 0) return fround(TAIL - fround(Math.log1p(-this.uniform())));
      const height = fround(fround(HEIGHTS[strip - 1] - HEIGHTS[strip]) * this.uniform());
      if (fround(height + HEIGHTS[strip]) < fround(Math.exp(-x))) return x;
    }
  }
}

// The ziggurat: 256 strips of equal area under exp(-x). Of each, its width by place, the places that lie inside
// the next one, and exp(-x) at its edge. numpy has them as literals of nine digits, which shows in one of them.
const written = (number) => Number(number.toPrecision(9));
const EDGE = 7.69711747013104972, AREA = 3.949659822581572e-3, PLACES = 8388608;
const TAIL = fround(EDGE);
const WIDTHS = new Float32Array(256), INSIDE = new Uint32Array(256), HEIGHTS = new Float32Array(256);
{
  let edge = EDGE, further = EDGE;
  const base = AREA / Math.exp(-edge);
  INSIDE[0] = Math.round((edge / base) * PLACES);
  WIDTHS[0] = written(base / PLACES);
  WIDTHS[255] = written(edge / PLACES);
  HEIGHTS[0] = 1;
  HEIGHTS[255] = written(Math.exp(-edge));
  for (let strip = 254; strip >= 1; strip--) {
    edge = -Math.log(AREA / edge + Math.exp(-edge));
    INSIDE[strip + 1] = Math.round((edge / further) * PLACES);
    further = edge;
    HEIGHTS[strip] = written(Math.exp(-edge));
    WIDTHS[strip] = written(edge / PLACES);
  }
}
