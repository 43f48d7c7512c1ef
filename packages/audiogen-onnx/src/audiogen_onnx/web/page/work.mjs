// The worker that makes sound, so that the page stays awake: models are opened, run and kept here.

import { Graphs } from "./graphs.mjs";
import { MusicGen } from "./musicgen.mjs";
import { VampNet } from "./vampnet.mjs";

const OFTEN = 100; // milliseconds between two words about how far it is

class Cancelled extends Error {}

let runtime = null; // onnxruntime, as a promise
let cancelled = false;
let spoken = 0; // when something was said
let said = ""; // of what
const models = new Map(); // the name of a model in the list -> itself, as a promise

self.onmessage = async ({ data }) => {
  if (data.cancel) {
    cancelled = true;
    return;
  }
  cancelled = false;
  try {
    const made = await make(data);
    self.postMessage({ made }, made.channels.map((channel) => channel.buffer));
  } catch (error) {
    if (error instanceof Cancelled) self.postMessage({ cancelled: true });
    else self.postMessage({ failed: String(error?.message ?? error) });
  }
};

/** Say how far it is, now and then, and hear whether to go on. */
async function say(doing, done, all) {
  if (doing === said && done < all && performance.now() - spoken < OFTEN) return;
  self.postMessage({ doing, done, all });
  await new Promise((next) => {
    const { port1, port2 } = new MessageChannel(); // a turn of messages, without the wait that timers have
    port1.onmessage = next;
    port2.postMessage(null);
  });
  if (cancelled) throw new Cancelled();
  [said, spoken] = [doing, performance.now()];
}

async function make({ facts, device, asked, clip }) {
  const model = await opened(facts, device);
  const told = (done, all) => say("making", done, all);
  const begun = performance.now();
  let codes, channels, notes = [];
  if (facts.family === "musicgen") {
    notes = asked.prompt === null ? [] : understood(model.tokenizer.encode(asked.prompt));
    const rows = await model.codes(asked, told);
    codes = [rows];
    await say("decoding", 0, 1);
    channels = await model.sound(rows, asked.seconds);
  } else {
    codes = (await model.codes(clip, asked, told)).made;
    await say("decoding", 0, 1);
    channels = await model.sound(codes, clip, asked);
  }
  const whole = channels.map((channel) => Float32Array.from(channel)); // of their own, to be handed over
  return { channels: whole, codes, rate: model.sampleRate, seconds: (performance.now() - begun) / 1000, notes };
}

/** What a model makes of a prompt that people should know, as sentences. */
function understood({ near, unknown }) {
  const notes = [];
  if (near.length) notes.push(`The model cannot follow ${near.join(", ")}.`);
  if (unknown.length) notes.push(`The model has never seen ${unknown.slice(0, 10).join(", ")}; it passes over that.`);
  return notes;
}

function opened(facts, device) {
  if (!models.has(facts.folder)) {
    const opening = open(facts, device);
    models.set(facts.folder, opening);
    opening.catch(() => models.delete(facts.folder));
  }
  return models.get(facts.folder);
}

async function open(facts, device) {
  runtime ??= start(device);
  const ort = await runtime;
  const stored = [...new Map(listed(facts).map((each) => [each.file, each])).values()];
  const all = stored.reduce((sum, each) => sum + each.size, 0);
  let done = 0;
  const read = (file) =>
    fetched(file, async (bytes) => {
      done += bytes;
      await say("loading", done, all);
    });
  const graphs = new Graphs(ort, facts.graphs, read, { executionProviders: [device], logSeverityLevel: 3 });
  const texts = facts.texts ? await parsed(facts.texts, read) : null;
  for (const name of Object.keys(facts.graphs)) await graphs.open(name);
  graphs.files.clear(); // onnxruntime has copies of its own
  return facts.family === "musicgen" ? new MusicGen(facts, graphs, texts) : new VampNet(facts, graphs);
}

function listed({ graphs, texts }) {
  const of = Object.values(graphs).flatMap(({ graph, data }) => (data ? [graph, data] : [graph]));
  return [...of, ...Object.values(texts ?? {}).filter(Boolean)];
}

async function parsed(texts, read) {
  const made = {};
  for (const [name, file] of Object.entries(texts))
    made[name] = file === null ? null : JSON.parse(new TextDecoder().decode(await read(file)));
  return made;
}

async function start(device) {
  const ort = await import(device === "webgpu" ? "./runtime/ort.webgpu.min.mjs" : "./runtime/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
  ort.env.logLevel = "error";
  return ort;
}

/** The bytes of a file of the site, which must be those that its description tells of. */
async function fetched({ file, size, sha256 }, told) {
  const url = new URL(file.split("/").map(encodeURIComponent).join("/"), import.meta.url);
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${file}: the server says ${answer.status}`);
  const bytes = new Uint8Array(size), reader = answer.body.getReader();
  let at = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (at + part.value.length > size) throw new Error(`${file}: is larger than models.json says`);
    bytes.set(part.value, at);
    at += part.value.length;
    await told(part.value.length);
  }
  if (at < size) throw new Error(`${file}: ends early`);
  if (self.crypto?.subtle) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    const hex = Array.from(digest, (each) => each.toString(16).padStart(2, "0")).join("");
    if (hex !== sha256) throw new Error(`${file}: is not the file that models.json describes`);
  }
  return bytes;
}
