// The page: what is asked, how far it is, and what came of it. What computes is in the worker.

import { wav } from "./sound.mjs";

const $ = (id) => document.getElementById(id);
const LARGEST = 2 ** 32; // of the seeds that are drawn

/** What was made, for whoever looks from outside. */
const audiogen = (globalThis.audiogen = { clips: [] });

const models = await (await fetch("models.json")).json();
let worker = null, device = null, file = null, asked = null;

for (const [index, { name, dtype }] of models.entries()) $("model").append(new Option(`${name} (${dtype})`, index));
navigator.gpu?.requestAdapter().then((found) => ($("devices").hidden = found === null));
$("model").onchange = choose;
$("another").onclick = () => ($("seed").value = Math.floor(Math.random() * LARGEST));
$("another").click();
$("clip").onchange = () => open($("clip").files[0]);
$("form").onsubmit = (event) => {
  event.preventDefault();
  make().catch((error) => end(error.message, true));
};
$("cancel").onclick = () => worker.postMessage({ cancel: true });
for (const kind of ["dragenter", "dragover", "dragleave", "drop"])
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") open(event.dataTransfer.files[0]);
  });
choose();

function model() {
  return models[$("model").value];
}

/** Show what the model that is chosen can be asked, and its defaults. */
function choose() {
  const { family, defaults } = model();
  for (const each of document.querySelectorAll("[data-family]")) each.hidden = each.dataset.family !== family;
  for (const name of ["seconds", "guidance_scale", "temperature", "steps"])
    $(name).value = defaults[name] ?? "";
}

function open(chosen) {
  file = chosen ?? null;
  $("opened").textContent = file === null ? "Open a clip, or drop one here" : file.name;
}

/** The number in a field; null where there is none. */
const number = (id) => ($(id).value.trim() === "" ? null : Number($(id).value));

/** What was filled in: only what differs from leaving it to the model. */
function filled(...names) {
  return Object.fromEntries(names.map((name) => [name, number(name)]).filter(([, value]) => value !== null));
}

async function make() {
  const facts = model(), { family } = facts;
  const seed = $("seed").value.trim() || "0";
  let clip = null, options, title;
  if (family === "musicgen") {
    const prompt = $("prompt").value.trim() || null, negative_prompt = $("negative_prompt").value.trim() || null;
    options = { prompt, negative_prompt, seed, ...filled("seconds", "guidance_scale", "temperature") };
    options.seconds ??= facts.defaults.seconds;
    if (negative_prompt !== null && options.guidance_scale === 1)
      throw new Error("Staying away from something needs a weight of the prompt other than 1.");
    title = prompt ?? "Anything";
  } else {
    if (file === null) throw new Error("Open a clip first.");
    clip = await decoded(file, facts.codec.sample_rate, number("length") ?? Infinity);
    const [from, to] = [number("from"), number("to")];
    if ((from === null) !== (to === null)) throw new Error("Say both where to begin and where to end, or neither.");
    if (from !== null && from >= to) throw new Error("The part to make anew goes from a time to a later one.");
    const infill = from === null ? null : [from, to];
    options = { seed, infill, ...filled("period", "keep", "steps", "temperature") };
    title = file.name;
  }
  asked = { facts, seed, title };
  begin();
  worker.postMessage({ facts, device, asked: options, clip });
}

/** A clip at the rate of a codec, in one or two channels. */
async function decoded(file, rate, seconds) {
  let buffer;
  try {
    buffer = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name}: this browser cannot read it as sound.`);
  }
  const length = Math.min(buffer.length, Math.round(seconds * rate));
  if (length < 0.5 * rate) throw new Error(`${file.name}: is too short; half a second is the least.`);
  const channels = Array.from({ length: Math.min(2, buffer.numberOfChannels) }, (_, at) => buffer.getChannelData(at));
  return channels.map((channel) => channel.slice(0, length));
}

function begin() {
  const chosen = $("device").value;
  if (worker === null || device !== chosen) {
    worker?.terminate();
    worker = new Worker("work.mjs", { type: "module" });
    worker.onmessage = ({ data }) => heard(data);
    worker.onerror = (event) => end(event.message || "The worker did not start.", true);
    device = chosen;
  }
  $("make").disabled = true;
  $("cancel").hidden = $("progress").hidden = false;
  show("Starting", 0, 1);
}

const DOING = { loading: "Loading the model", making: "Making", decoding: "Turning codes into sound" };

function heard({ doing, done, all, made, cancelled, failed }) {
  if (doing) show(DOING[doing], done, all);
  else if (cancelled) end("Cancelled.");
  else if (failed !== undefined) end(failed, true);
  else if (made) {
    keep(made);
    end(made.notes.join(" "));
  }
}

function show(text, done, all) {
  $("status").className = "";
  $("status").textContent = `${text}: ${Math.floor((100 * done) / all)} %`;
  $("progress").value = done / all;
}

function end(text, failed = false) {
  $("make").disabled = false;
  $("cancel").hidden = $("progress").hidden = true;
  $("status").className = failed ? "failed" : "";
  $("status").textContent = text;
}

/** A card of what was made, the newest first. */
function keep({ channels, codes, rate, seconds }) {
  const { facts, seed, title } = asked;
  const url = URL.createObjectURL(new Blob([wav(channels, rate)], { type: "audio/wav" }));
  const name = `${title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 48) || "clip"}-${seed}.wav`;
  const card = document.createElement("article");
  card.className = "clip";
  const heading = Object.assign(document.createElement("h2"), { textContent: title });
  const audio = Object.assign(document.createElement("audio"), { controls: true, src: url });
  const link = Object.assign(document.createElement("a"), { href: url, download: name, textContent: "Download WAV" });
  const length = (channels[0].length / rate).toFixed(1);
  const about = document.createElement("p");
  about.append(`${facts.name} · seed ${seed} · ${length} s, made in ${seconds.toFixed(1)} s · `, link);
  card.append(heading, audio, about);
  $("clips").prepend(card);
  audiogen.clips.push({ codes: codes.map((rows) => rows.map((row) => Array.from(row))), seed, rate, seconds });
}
