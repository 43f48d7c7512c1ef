// Sound in arrays: how loud it is, and as a file.

/** The nearest whole number, of two the even one, as Python rounds. */
export function even(number) {
  const below = Math.floor(number), rest = number - below;
  return rest > 0.5 || (rest === 0.5 && below % 2) ? below + 1 : below;
}

/** The largest magnitude of channels. */
export function peak(channels) {
  let most = 0;
  for (const channel of channels) for (const each of channel) most = Math.max(most, Math.abs(each));
  return most;
}

export const SILENCE = -70; // LUFS, the quietest there is
const BLOCK = 0.4; // seconds; the next begins a quarter of it later
const SHORTEST = 0.5; // seconds; what is shorter is filled with silence

/** The factor that takes samples from one loudness to another, both LUFS. */
export const gainTo = (target, measured) => Math.exp(((target - measured) * Math.log(10)) / 20);

/** Integrated loudness in LUFS by ITU-R BS.1770-4, every channel of the same weight, as VampNet measures it. */
export function loudness(channels, rate) {
  const length = channels[0].length, whole = Math.max(length, Math.floor(SHORTEST * rate));
  const energy = new Float64Array(whole);
  for (const channel of channels) {
    const [shelf, pass] = [highShelf(rate), highPass(rate)].map((filter) => new Biquad(...filter));
    const end = length < SHORTEST * rate ? whole : length;
    for (let at = 0; at < end; at++) energy[at] += pass.next(shelf.next(at < length ? channel[at] : 0)) ** 2;
  }
  const kernel = Math.floor(BLOCK * rate), stride = Math.floor(BLOCK * rate * 0.25);
  const level = (each) => -0.691 + 10 * Math.log10(each);
  const mean = (values) => values.reduce((sum, each) => sum + each, 0) / values.length;
  const blocks = Array.from({ length: 1 + Math.ceil((whole - kernel) / stride) }, (_, index) => {
    let sum = 0;
    for (const each of energy.subarray(index * stride, index * stride + kernel)) sum += each;
    return sum / (BLOCK * rate);
  });
  const loud = blocks.filter((each) => level(each) > SILENCE);
  if (!loud.length) return SILENCE;
  const gate = level(mean(loud)) - 10;
  return Math.max(SILENCE, level(mean(loud.filter((each) => level(each) > gate))));
}

/** A recursive filter of the second order. */
class Biquad {
  constructor([b0, b1, b2], [, a1, a2]) {
    Object.assign(this, { b0, b1, b2, a1, a2, first: 0, second: 0 });
  }

  next(x) {
    const y = this.b0 * x + this.first;
    this.first = this.b1 * x - this.a1 * y + this.second;
    this.second = this.b2 * x - this.a2 * y;
    return y;
  }
}

/** The head: +4 dB above 1.5 kHz. */
function highShelf(rate) {
  const gain = 10 ** (4 / 40), [cosine, alpha] = angle(1500, 1 / Math.sqrt(2), rate);
  const side = 2 * Math.sqrt(gain) * alpha, up = gain + 1, down = gain - 1;
  const b = [up + down * cosine + side, -2 * (down + up * cosine), up + down * cosine - side];
  return rounded(
    b.map((each) => gain * each),
    [up - down * cosine + side, 2 * (down - up * cosine), up - down * cosine - side],
  );
}

/** What lies below 38 Hz is hardly heard. */
function highPass(rate) {
  const [cosine, alpha] = angle(38, 0.5, rate), side = (1 + cosine) / 2;
  return rounded([side, -(1 + cosine), side], [1 + alpha, -2 * cosine, 1 - alpha]);
}

/** Cosine of a frequency on the circle, and the half width of its band. */
function angle(frequency, quality, rate) {
  const turn = (2 * Math.PI * frequency) / rate;
  return [Math.cos(turn), Math.sin(turn) / (2 * quality)];
}

/** Divided by a[0], and rounded to float32 as the original holds them. */
const rounded = (...both) => both.map((part) => part.map((each) => Math.fround(each / both[1][0])));

/** A WAV file of 16 bits: channels of Float32Array -> bytes. */
export function wav(channels, rate) {
  const frames = channels[0].length, width = 2 * channels.length, bytes = new DataView(new ArrayBuffer(44 + frames * width));
  const text = (at, word) => [...word].forEach((letter, index) => bytes.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF");
  bytes.setUint32(4, 36 + frames * width, true);
  text(8, "WAVEfmt ");
  bytes.setUint32(16, 16, true);
  bytes.setUint16(20, 1, true);
  bytes.setUint16(22, channels.length, true);
  bytes.setUint32(24, rate, true);
  bytes.setUint32(28, rate * width, true);
  bytes.setUint16(32, width, true);
  bytes.setUint16(34, 16, true);
  text(36, "data");
  bytes.setUint32(40, frames * width, true);
  for (let frame = 0; frame < frames; frame++)
    channels.forEach((channel, at) => {
      const whole = Math.max(-32768, Math.min(32767, even(channel[frame] * 32768)));
      bytes.setInt16(44 + frame * width + 2 * at, whole, true);
    });
  return new Uint8Array(bytes.buffer);
}
