// What clips do on the page: one plays at a time, the picture shows where it is and takes one there.
const audioOf = picture => picture.parentElement.querySelector("audio");
const follow = audio => {
  const line = audio.parentElement.querySelector(".picture i");
  if (line && audio.duration) line.style.left = `${(100 * audio.currentTime) / audio.duration}%`;
};
document.addEventListener("timeupdate", event => follow(event.target), true);
document.addEventListener("seeked", event => follow(event.target), true);
document.addEventListener("play", event => {
  for (const other of document.querySelectorAll("audio")) if (other !== event.target) other.pause();
}, true);
document.addEventListener("click", event => {
  const picture = event.target.closest && event.target.closest(".picture");
  if (!picture) return;
  const audio = audioOf(picture), box = picture.getBoundingClientRect();
  if (audio && audio.duration) audio.currentTime = ((event.clientX - box.left) / box.width) * audio.duration;
});

// Beside a narrow form there is no room: what is made lies below it.
document.addEventListener("click", event => {
  if (innerWidth <= 760 && event.target.closest && event.target.closest(".make"))
    document.querySelector(".stage").scrollIntoView({behavior: "smooth"});
});

// Sound that is heard while it is made. An audio element waits for seconds of it before it begins; this does not.
class Live {
  constructor(box) {
    this.box = box;
    this.button = box.querySelector("button");
    this.time = box.querySelector("span.time");
    this.context = new AudioContext();
    this.end = 0; // when all that has come will have been heard, in the context's time
    this.come = 0; // seconds that have come
    this.button.addEventListener("click", () => {
      if (this.context.state === "running") this.context.suspend();
      else this.context.resume();
    });
    this.context.addEventListener("statechange", () => this.show());
    this.clock = setInterval(() => this.show(), 200);
    this.show();
    this.listen(box.dataset.source);
  }
  get heard() {
    return Math.max(0, this.come - Math.max(0, this.end - this.context.currentTime));
  }
  get plays() {
    return this.context.state === "running" && (!this.done || this.context.currentTime < this.end);
  }
  show() {
    const runs = this.context.state === "running";
    this.button.textContent = runs ? "❚❚" : "▶";
    this.button.setAttribute("aria-label", runs ? "Pause" : "Play");
    this.time.textContent = `${this.heard.toFixed(1)} s`;
    this.box.dataset.heard = this.heard;
  }
  async listen(source) {
    this.aborted = new AbortController();
    const answer = await fetch(source, {signal: this.aborted.signal}).catch(() => null);
    if (!answer || !answer.ok) return;
    const rate = Number(answer.headers.get("X-Sample-Rate")), channels = Number(answer.headers.get("X-Channels"));
    const reader = answer.body.getReader();
    let left = new Uint8Array(0), header = 44;
    for (;;) {
      const part = await reader.read().catch(() => ({done: true}));
      this.done = part.done;
      if (part.done) return;
      const bytes = new Uint8Array(left.length + part.value.length);
      bytes.set(left);
      bytes.set(part.value, left.length);
      const frames = Math.floor((bytes.length - header) / (2 * channels));
      left = frames > 0 ? bytes.slice(header + frames * 2 * channels) : bytes;
      if (frames > 0) {
        this.add(new Int16Array(bytes.slice(header, header + frames * 2 * channels).buffer), channels, rate);
        header = 0;
      }
    }
  }
  add(samples, channels, rate) {
    const frames = samples.length / channels, buffer = this.context.createBuffer(channels, frames, rate);
    for (let channel = 0; channel < channels; channel++) {
      const into = buffer.getChannelData(channel);
      for (let i = 0; i < frames; i++) into[i] = samples[i * channels + channel] / 32768;
    }
    const node = this.context.createBufferSource();
    node.buffer = buffer;
    node.connect(this.context.destination);
    this.end = Math.max(this.end, this.context.currentTime + 0.05);
    node.start(this.end);
    this.end += frames / rate;
    this.come += frames / rate;
  }
  close() {
    clearInterval(this.clock);
    this.aborted.abort();
    this.context.close();
    this.box.remove();
  }
}

window.audiogen = {
  live: null,
  hear(element) {
    if (this.live) this.live.close();
    const box = element.querySelector(".live");
    this.live = box && new Live(box);
  },
  // The file takes over where what was heard live has got to.
  handOver(element) {
    if (!this.live) return;
    const at = this.live.heard, plays = this.live.plays, own = element.querySelector("audio");
    this.live.close();
    this.live = null;
    if (!own || !plays) return;
    const begin = () => { own.currentTime = at; own.play().catch(() => {}); };
    if (own.readyState > 0) begin();
    else own.addEventListener("loadedmetadata", begin, {once: true});
  },
};
